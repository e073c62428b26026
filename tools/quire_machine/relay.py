"""A machine in the background, its serial line offered on a Unix socket to one caller after the other.

What the machine prints while nobody has called is dropped, as on any serial line. The socket is there
as long as the machine is.
"""

import os
import select
import signal
import socket
import sys
import traceback

from quire_machine import sockets
from quire_machine.console import MachineError
from quire_machine.boot import boot
from quire_machine.patience import PATIENCE_SECONDS

SEND_SECONDS = 30


def serve(machine, listener):
    """Passes bytes on until the machine has ended."""
    caller = None
    while machine.status is None:
        watched = [machine] + ([caller] if caller else [listener])
        ready, _, _ = select.select(watched, [], [])
        if machine in ready:
            data = machine.take_output()
            if caller and not _deliver(caller, data):
                caller = _hang_up(caller)
        if listener in ready:
            caller, _ = listener.accept()
            caller.settimeout(SEND_SECONDS)
        if caller and caller in ready:
            data = _receive(caller)
            if data:
                machine.send(data)
            else:
                caller = _hang_up(caller)
    if caller:
        _deliver(caller, machine.take_output())
        _hang_up(caller)


def _deliver(caller, data):
    try:
        caller.sendall(data)
        return True
    except OSError:
        return False


def _receive(caller):
    try:
        return caller.recv(4096)
    except OSError:
        return b""


def _hang_up(caller):
    caller.close()


def listens(path):
    """True when somebody answers at this socket. One that was left behind is removed."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            sockets.call(caller.connect, path)
        except FileNotFoundError:
            return False
        except ConnectionRefusedError:
            os.unlink(path)
            return False
    return True


def start(engine, iso, path, patience=PATIENCE_SECONDS):
    """Boots a machine in the background and returns when its console is there; guests that run on keep it
    away for `patience` seconds. Raises MachineError with what went wrong when it does not come."""
    if listens(path):
        raise MachineError(f"a machine is there already, at unix:{path}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        sockets.call(listener.bind, path)
    except OSError as error:
        raise MachineError(f"no socket {path}: {error}") from error
    listener.listen()
    news, news_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(news)
        _background(engine, iso, path, listener, news_write, patience)
    listener.close()
    os.close(news_write)
    with os.fdopen(news, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    if said != "ready\n":
        os.waitpid(child, 0)
        raise MachineError(said.strip() or "the machine did not start")
    return child


def _background(engine, iso, path, listener, news, patience):
    """The process that holds the machine; does not return."""
    status = 1
    try:
        os.setsid()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda *_: sys.exit(1))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        with boot(engine, iso, lambda _: None) as machine:
            machine.bring_prompt(patience)
            os.write(news, b"ready\n")
            os.close(news)
            news = None
            serve(machine, listener)
            status = 0 if machine.powered_off() else 1
    except (MachineError, OSError) as error:
        if news is not None:
            os.write(news, str(error).encode())
    except Exception:  # pylint: disable=broad-except
        if news is not None:
            os.write(news, traceback.format_exc().encode())
    finally:
        try:
            os.unlink(path)
        except OSError:
            pass
        os._exit(status)
