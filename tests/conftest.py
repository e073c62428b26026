"""What every Python test stands on: the tools' package in reach, and a time limit for each test."""

import signal
import sys
import threading

import pytest

from support import TOOLS

sys.path.insert(0, TOOLS)

TEST_SECONDS = 240


class TestTimeout(Exception):
    pass


def pytest_configure(config):
    config.addinivalue_line("markers", f"seconds(n): time limit, {TEST_SECONDS} unless given")


@pytest.fixture(autouse=True)
def time_limit(request):
    """No test hangs: past its time it fails where it stands."""
    mark = request.node.get_closest_marker("seconds")
    seconds = mark.args[0] if mark else TEST_SECONDS
    # Now and then a worker of xdist runs its tests in another thread, which has no signals.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_late(*_):
        raise TestTimeout(f"the test took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
