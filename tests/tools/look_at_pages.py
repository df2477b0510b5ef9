"""Looks at pages in a headless Chromium: python3 look_at_pages.py FOLDER_OF_SCRIPTS FILE...

Prints a line for each thing that is wrong with a page (.html) or a picture (.svg) and ends with 1 where there is one; with 77 and the
reason where there is no Chromium. LATHE_SCREENSHOTS names a folder to keep what was seen."""

import os
import sys

sys.path.insert(0, sys.argv[1])
import browser  # noqa: E402

WIDTHS = (1200, 400)
# Contrast that WCAG 2 asks of text.
READABLE = 4.5

# Everything that has text of its own: its colour and the colours behind it, from its own up to the page's.
TEXTS = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('style, svg, title, [hidden]') &&
    [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).map(e => {
  const behind = [];
  for (let a = e; a; a = a.parentElement) behind.push(getComputedStyle(a).backgroundColor);
  return [e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 30), getComputedStyle(e).color, behind];
})"""
SVG_TEXTS = """
[...document.querySelectorAll('svg text')].map(e =>
  [e.textContent.slice(0, 30), getComputedStyle(e).fill, [getComputedStyle(e.ownerSVGElement.querySelector('rect.paper')).fill]])"""
# What the page would scroll sideways for, and texts that leave the picture.
OVERHANGS = """
[...document.querySelectorAll('svg text')].filter(e => {
  const box = e.getBBox(), view = e.ownerSVGElement.viewBox.baseVal;
  return box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height;
}).map(e => e.textContent)"""


def rgba(text):
    """'rgb(1, 2, 3)' or 'rgba(1, 2, 3, 0.5)' as four numbers."""
    values = [float(v) for v in text[text.index("(") + 1:-1].replace("/", ",").split(",")]
    return values + [1.0] * (4 - len(values))


def luminance(colour):
    linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour, behind):
    """Of a text's colour against a pile of backgrounds, the uppermost first."""
    back = [255.0, 255.0, 255.0]
    for layer in reversed([rgba(b) for b in behind]):
        back = [layer[3] * layer[i] + (1 - layer[3]) * back[i] for i in range(3)]
    front = rgba(colour)
    front = [front[3] * front[i] + (1 - front[3]) * back[i] for i in range(3)]
    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def look(page, path, keep):
    wrong = []
    ground = {}
    name = os.path.basename(os.path.dirname(path)) + "-" + os.path.basename(path)
    for dark in (False, True):
        mode = "dark" if dark else "light"
        for width in WIDTHS:
            page.open(path, width, dark=dark)
            where = f"{path}, {width} pixels wide, {mode}: "
            if page.value("document.querySelector('parsererror') !== null"):
                return [where + "not well-formed"]
            if keep:
                with open(os.path.join(keep, f"{name}-{width}-{mode}.png"), "wb") as file:
                    file.write(page.screenshot())
            if path.endswith(".html") and page.value("document.documentElement.scrollWidth") > width:
                wrong.append(where + f"scrolls sideways to {page.value('document.documentElement.scrollWidth')}")
            # A picture in small: one that is blank has one colour.
            colours = [c for row in browser.pixels(page.screenshot(scale=0.25, height=600)) for c in row]
            ground[mode] = max(set(colours), key=colours.count)
            if len(set(colours)) < 20 or colours.count(ground[mode]) > 0.995 * len(colours):
                wrong.append(where + f"blank: {len(set(colours))} colours")
            texts = page.value(TEXTS) + page.value(SVG_TEXTS)
            if not texts:
                wrong.append(where + "no text")
            for text, colour, behind in texts:
                if contrast(colour, behind) < READABLE:
                    wrong.append(where + f"'{text}' has a contrast of {contrast(colour, behind):.2f}")
            for text in page.value(OVERHANGS):
                wrong.append(where + f"'{text}' leaves the picture")
    if not luminance(ground["dark"]) < 0.1 < 0.7 < luminance(ground["light"]):
        wrong.append(f"{path}: the ground is {ground['light']} in light, {ground['dark']} in dark")
    # What the browser understood, with nothing of the markup lost.
    if path.endswith(".html"):
        for heading in ("Course of the training", "Most confidently wrong", "Settings"):
            if heading not in page.value("[...document.querySelectorAll('section > h2')].map(e => e.textContent)"):
                wrong.append(f"{path}: no section '{heading}'")
        for selector in ("figure svg polyline.train", "h1", "dl dt", "section table.settings td"):
            if not page.value(f"document.querySelector('{selector}') !== null"):
                wrong.append(f"{path}: no {selector}")
        if page.value("document.characterSet") != "UTF-8" or page.value("document.compatMode") != "CSS1Compat":
            wrong.append(f"{path}: not UTF-8, or in quirks mode")
        # Scripts, handlers and what would be loaded, wherever a text might have got through as markup.
        if page.value("document.querySelectorAll('script, img, iframe, link, object, embed, [onload], [onerror], [src], [href]').length") != 0:
            wrong.append(f"{path}: a foreign element")
    if page.value("window.evil === undefined") is not True:
        wrong.append(f"{path}: a script ran")
    return wrong


def main():
    executable = browser.find()
    if not executable:
        print("no Chromium: install the package chromium, or set LATHE_CHROMIUM to one")
        return 77
    wrong = []
    with browser.Browser(executable) as page:
        for path in sys.argv[2:]:
            wrong += look(page, path, os.environ.get("LATHE_SCREENSHOTS"))
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
