"""Headless Chromium, driven through two pipes by the protocol of its developer tools."""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Chromium", "Page", "chromium"]

PATIENCE_S = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
_KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    " ": (32, " "),
    "/": (191, "/"),
}
# Resolves when an expression is true, looking at each frame; rejects with what it was at the end.
_UNTIL = """
new Promise((resolve, reject) => {
  const end = performance.now() + %d;
  const look = () => {
    let value;
    try { value = (%s); } catch (error) { value = error; }
    if (value && !(value instanceof Error)) resolve(value);
    else if (performance.now() > end) reject(new Error(`still ${value}`));
    else requestAnimationFrame(look);
  };
  look();
})
"""


class Chromium:
    """A running browser. Use `chromium()`."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int, writer: int) -> None:
        self._process = process
        self._in = os.fdopen(reader, "rb")
        self._out = os.fdopen(writer, "wb", buffering=0)
        self._last = 0
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._in.fileno(), 1 << 20):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in messages:
                said = json.loads(message)
                if "id" in said:
                    self._answers[said["id"]].put(said)
                else:
                    self.events.setdefault(said.get("sessionId", ""), []).append(said)
        for waiting in list(self._answers.values()):
            waiting.put({"error": {"message": "Chromium ended"}})

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result."""
        self._last += 1
        number = self._last
        self._answers[number] = queue.SimpleQueue()
        request: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        self._out.write(json.dumps(request).encode() + b"\0")
        answer = self._answers[number].get(timeout=PATIENCE_S + 10)
        del self._answers[number]
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    @contextmanager
    def page(
        self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False
    ) -> Iterator[Page]:
        """A page in a context of its own, without anything stored before."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, session["sessionId"])
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.size(width, height)
            page.prefer_dark(dark)
            page.go(url)
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        """End the browser."""
        self.call("Browser.close")
        self._process.wait(PATIENCE_S)
        self._thread.join()
        self._in.close()
        self._out.close()


class Page:
    """A page, and all that it said and asked for since it was opened."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript; a promise is awaited, an exception fails."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if details := answer.get("exceptionDetails"):
            what = details.get("exception", {}).get("description", details["text"])
            raise AssertionError(f"{expression[:300]}: {what}")
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until JavaScript is true; returns its value."""
        return self.evaluate(_UNTIL % (PATIENCE_S * 1000, expression))

    def go(self, url: str) -> None:
        """Open another address in this page."""
        self.evaluate("window.isOld = true")
        self.call("Page.navigate", url=url)
        self.until("!window.isOld && document.readyState !== 'loading'")

    def size(self, width: int, height: int) -> None:
        """What the page has room for, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def prefer_dark(self, dark: bool) -> None:
        """What the system says that it prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def click(self, selector: str, *, ctrl: bool = False) -> None:
        """Click into the middle of an element that can be seen."""
        x, y = self.middle(selector)
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button="left", clickCount=1, modifiers=2 if ctrl else 0,
            )  # fmt: skip

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is."""
        x, y = self.evaluate(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return x, y

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            code, text = _KEYS[key]
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind, key=key, windowsVirtualKeyCode=code,
                    **({"text": text} if text and kind == "keyDown" else {}),
                )  # fmt: skip

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of a kind."""
        return [
            event["params"]
            for event in self._browser.events.get(self._session, [])
            if event["method"] == method
        ]

    def complaints(self) -> list[str]:
        """Exceptions, errors and warnings, violations of the content security policy included."""
        return [
            *(
                json.dumps(each["exceptionDetails"])
                for each in self.events("Runtime.exceptionThrown")
            ),
            *(
                json.dumps(each["args"])
                for each in self.events("Runtime.consoleAPICalled")
                if each["type"] in ("error", "warning", "assert")
            ),
            *(
                f"{each['entry']['text']} {each['entry'].get('url', '')}"
                for each in self.events("Log.entryAdded")
                if each["entry"]["level"] in ("error", "warning")
            ),
        ]

    def requested(self) -> list[str]:
        """The URLs of all requests."""
        return [each["request"]["url"] for each in self.events("Network.requestWillBeSent")]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A picture of what can be seen, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Chromium]:
    """Run Debian's Chromium while the block runs, with an empty profile."""
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    # It reads commands from fd 3 and writes answers to fd 4. dash knows no fds above 9.
    shell = f'exec "$@" 3<&{command_out} 4>&{answer_in}'
    with (profile / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", "chromium", *FLAGS, *flags, f"--user-data-dir={profile}"],
            pass_fds=(command_out, answer_in), stdout=log, stderr=log,
        )  # fmt: skip
    os.close(command_out)
    os.close(answer_in)
    browser = Chromium(process, answer_out, command_in)
    try:
        yield browser
    finally:
        browser.close()
