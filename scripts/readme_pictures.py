"""Makes the README's pictures from a run: python3 scripts/readme_pictures.py LATHE MODEL ROWS

LATHE is the command, MODEL a model's folder, ROWS a file to train on. A terminal of 104 columns is shown what a reader types and answers as
it does there (docs/pictures/terminal.svg); the report page is looked at in Chromium (docs/pictures/report.webp)."""

import fcntl
import html
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios

import browser

COLUMNS = 104
LINE = 18
LETTER = 7.83  # the advance of 13 pixels of DejaVu Sans Mono; textLength sets it for other fonts
COMMAND = "lathe finetune --model all-minilm-l6-v2 --train reviews.tsv --dev 0.1 --epochs 3 --output sentiment"
COLOURS = {30: "#6b7280", 31: "#ff8a80", 32: "#8fd694", 33: "#ffd479", 34: "#8fb3ff", 35: "#d6a2ff", 36: "#7fd7e0", 37: "#e8eaee", 90: "#9aa3b2"}


def run_in_terminal(command, folder):
    """What a command writes to a terminal, to standard output and error alike."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(command, cwd=folder, stdin=side, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm-256color"})
    os.close(side)
    output = b""
    while True:
        try:
            part = os.read(main, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        output += part
    os.close(main)
    if process.wait() != 0:
        sys.exit(f"the command ended with {process.returncode}:\n{output.decode(errors='replace')}")
    return output.decode()


def screen(output):
    """The lines that are left on the screen, as lists of (character, style)."""
    lines, column, style = [[]], 0, ""
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", output):
        if part == "\r":
            column = 0
        elif part == "\n":
            lines.append([])
            column = 0
        elif part.startswith("\x1b["):
            codes = [int(c or 0) for c in part[2:-1].split(";")] if part[-1] == "m" else []
            for code in codes:
                if code == 0:
                    style = ""
                elif code == 1:
                    style += "font-weight:700;"
                elif code == 2:
                    style += "opacity:.65;"
                elif code in COLOURS:
                    style += f"fill:{COLOURS[code]};"
            if part == "\x1b[K":
                del lines[-1][column:]
        else:
            line = lines[-1]
            line += [(" ", "")] * (column - len(line))
            line[column:column + 1] = [(part, style)]
            column += 1
    while lines and not lines[-1]:
        lines.pop()
    # A terminal begins a new line where one is full.
    return [line[i:i + COLUMNS] for line in lines for i in range(0, max(len(line), 1), COLUMNS)]


def picture(lines, title):
    """An SVG of a terminal with these lines."""
    width, height = 40 + round(COLUMNS * LETTER), 64 + LINE * len(lines)
    body = []
    for row, line in enumerate(lines):
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and line[end][1] == line[start][1]:
                end += 1
            text = "".join(c for c, _ in line[start:end])
            if text.strip():
                style = f' style="{line[start][1]}"' if line[start][1] else ""
                indent = len(text) - len(text.lstrip())
                shown = text.strip()
                body.append(f'<text x="{20 + (start + indent) * LETTER:.1f}" y="{60 + LINE * row}" textLength="{len(shown) * LETTER:.1f}"'
                            f'{style}>{html.escape(shown, quote=False)}</text>')
            start = end
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">
<style>text {{ font: 13px ui-monospace, 'Cascadia Mono', Menlo, 'DejaVu Sans Mono', monospace; fill: #d5dae3; white-space: pre; }}</style>
<rect width="{width}" height="{height}" rx="10" fill="#14171c" stroke="#2b303a"/>
<circle cx="22" cy="22" r="6" fill="#4a5160"/><circle cx="42" cy="22" r="6" fill="#4a5160"/><circle cx="62" cy="22" r="6" fill="#4a5160"/>
{chr(10).join(body)}
</svg>
"""


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    lathe, model, rows = (os.path.abspath(path) for path in sys.argv[1:])
    pictures = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "pictures")
    os.makedirs(pictures, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(model, os.path.join(folder, "all-minilm-l6-v2"))
        os.symlink(rows, os.path.join(folder, "reviews.tsv"))
        output = run_in_terminal([lathe, *COMMAND.split()[1:]], folder)
        typed = [("$", "fill:#8fd694;"), (" ", "")] + [(c, "fill:#ffffff;font-weight:700;") for c in COMMAND]
        lines = [typed] + screen(output)
        with open(os.path.join(pictures, "terminal.svg"), "w", encoding="utf-8") as file:
            file.write(picture(lines, "A terminal in which lathe finetune trains a model and prints how well it does"))
        with browser.Browser(browser.find() or sys.exit("no Chromium")) as page:
            page.open(os.path.join(folder, "sentiment", "report.html"), 1000)
            with open(os.path.join(pictures, "report.webp"), "wb") as file:
                file.write(page.screenshot(height=page.value("document.querySelectorAll('section')[2].getBoundingClientRect().top - 8"),
                                           format="webp", quality=80))


if __name__ == "__main__":
    main()
