"""A headless Chromium, driven over a pair of pipes: no server, no network, nothing beyond Python's library."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import zlib

PATIENCE = 120  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find():
    """The path of a Chromium, else None. $LATHE_CHROMIUM names one."""
    for name in (os.environ.get("LATHE_CHROMIUM"), *NAMES):
        path = name and shutil.which(name)
        if path:
            return path
    return None


class Browser:
    """One page of one browser, which ends with the `with` block."""

    def __init__(self, executable):
        self._profile = tempfile.TemporaryDirectory(prefix="lathe-browser-")
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = ["--headless", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu", "--disable-extensions",
                   "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage",
                   # As root, in a container: the pages are the caller's own, and nothing else is opened.
                   "--no-sandbox", "--user-data-dir=" + self._profile.name]

        def pipes():
            # Both may be 3 or 4 already: out of the way first.
            high = [os.dup(commands), os.dup(answers)]
            while min(high) < 5:
                high = [os.dup(fd) for fd in high]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen([executable, *options, "about:blank"], preexec_fn=pipes, close_fds=False,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self._session = None
        self._events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._commands)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._profile.cleanup()

    def _message(self):
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise RuntimeError(f"the browser has said nothing for {PATIENCE} s")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        """A command of the DevTools protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer.get("method"))

    def open(self, path, width, height=900, dark=False):
        """Shows a file at a window's size, in light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._events.clear()
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        while "Page.loadEventFired" not in self._events:
            self._events.append(self._message().get("method"))

    def value(self, expression):
        """What a JavaScript expression gives in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def screenshot(self, scale=1.0, height=None, **options):
        """The page from its top, as wide as the window and so many pixels high (all of it where None), as the bytes of a PNG."""
        size = self.call("Page.getLayoutMetrics")
        clip = {"x": 0, "y": 0, "width": size["cssLayoutViewport"]["clientWidth"],
                "height": height or size["cssContentSize"]["height"], "scale": scale}
        options = {"format": "png", "clip": clip, "captureBeyondViewport": True, **options}
        return base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])


def pixels(png):
    """The rows of a PNG of 8 bits a channel, as lists of (red, green, blue)."""
    at = 8
    data = b""
    while at < len(png):
        length = int.from_bytes(png[at:at + 4], "big")
        kind, body = png[at + 4:at + 8], png[at + 8:at + 8 + length]
        at += 12 + length
        if kind == b"IHDR":
            width, height = (int.from_bytes(body[i:i + 4], "big") for i in (0, 4))
            channels = {2: 3, 6: 4}[body[9]]
        elif kind == b"IDAT":
            data += body
    data = zlib.decompress(data)
    stride = width * channels
    rows = []
    before = bytes(stride)
    for y in range(height):
        start = y * (stride + 1)
        kind, line = data[start], bytearray(data[start + 1:start + 1 + stride])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            up = before[i]
            corner = before[i - channels] if i >= channels else 0
            if kind == 1:
                line[i] = line[i] + left & 255
            elif kind == 2:
                line[i] = line[i] + up & 255
            elif kind == 3:
                line[i] = line[i] + (left + up) // 2 & 255
            elif kind == 4:
                guess = left + up - corner
                nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
                line[i] = line[i] + nearest & 255
        before = bytes(line)
        rows.append([tuple(line[i:i + 3]) for i in range(0, stride, channels)])
    return rows
