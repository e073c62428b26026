"""A page in real headless Chromium: what stands in it once its script has run, and how it looks."""

import os
import re
import shutil
import subprocess
from html import unescape

SECONDS = 60
DARK = "--blink-settings=preferredColorScheme=0"


def program():
    """The test needs it: tools/setup.sh installs it."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    raise AssertionError("there is no Chromium; `tools/setup.sh test` installs it")


def _run(page, folder, size, dark, *options):
    command = [program(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-dev-shm-usage", f"--user-data-dir={folder}/profile", "--disable-extensions"]
    # No name resolves: a page that wanted anything from outside would not get it.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size={},{}".format(*size)]
    command += [DARK] if dark else []
    done = subprocess.run(
        [*command, *options, "file://" + os.path.abspath(page)],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout.decode("utf-8", "replace")


def measure(page, folder, size, script, dark=False):
    """Loads a copy of the page with `script` at its end, an expression of JavaScript; returns the text
    of its value."""
    copy = os.path.join(folder, "measured.html")
    with open(page, encoding="utf-8") as source:
        text = source.read()
    probe = (
        "<script>(function () { var pre = document.createElement('pre'); pre.id = 'measured';"
        f"pre.textContent = {script}; document.body.appendChild(pre); }})()</script></body>"
    )
    with open(copy, "w", encoding="utf-8") as out:
        out.write(text.replace("</body>", probe))
    shown = _run(copy, folder, size, dark, "--virtual-time-budget=2000", "--dump-dom")
    found = re.search(r'<pre id="measured">(.*?)</pre>', shown, re.S)
    assert found, f"the script did not run:\n{shown[-2000:]}"
    return unescape(found.group(1))


def screenshot(page, folder, size, dark=False):
    """Returns the PNG's bytes."""
    path = os.path.join(folder, "screen.png")
    _run(page, folder, size, dark, f"--screenshot={path}")
    with open(path, "rb") as image:
        return image.read()


# What a person would see of the picture: names that can be read, nothing on top of another.
LOOK = r"""(function () {
  var texts = Array.from(document.querySelectorAll("#drawing text"));
  var boxes = texts.map(function (t) { return t.getBoundingClientRect(); });
  var clashes = 0, outside = 0, drawing = document.getElementById("drawing").getBoundingClientRect();
  boxes.forEach(function (a, i) {
    if (a.left < drawing.left - 1 || a.right > drawing.right + 1 || a.top < drawing.top - 1) outside++;
    boxes.slice(i + 1).forEach(function (b) {
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        clashes++;
    });
  });
  function group(name) { return document.querySelectorAll(name).length; }
  var style = getComputedStyle(document.body);
  var run = document.querySelector(".space .run[data-run]"), spoken = "", ribbons = 0, moved = "";
  if (run) {
    var space = run.closest(".space");
    space.focus();
    space.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true}));
    var start = document.activeElement;
    while (!document.activeElement.hasAttribute("data-run")) {
      var at = document.activeElement;
      at.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true}));
      if (document.activeElement === at) break;
    }
    spoken = document.getElementById("detail").textContent;
    ribbons = group("#chosen-ribbons .ribbon");
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
    moved = document.activeElement === space;
  }
  return JSON.stringify({
    ready: document.documentElement.hasAttribute("data-ready"),
    names: Array.from(document.querySelectorAll("#drawing .name")).map(function (t) {
      return t.textContent; }),
    listed: Array.from(document.querySelectorAll("tbody td:first-child")).map(function (t) {
      return t.textContent; }),
    smallest: Math.min.apply(null, boxes.map(function (b) { return b.height; })),
    clashes: clashes, outside: outside,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    ribbons: group("#memory .ribbon"), frames: group("#memory .frames"), runs: group(".space .run"),
    back: style.backgroundColor, text: style.color,
    spoken: spoken, chosen: ribbons, escaped: moved });
})()"""
