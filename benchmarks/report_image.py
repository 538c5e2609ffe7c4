"""The picture of a report that the README shows, from runs of edge bench.

    edge bench out/* -o run.json
    python -m benchmarks.report_image run.json

Needs chromium (make rigs).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from edge import measurement
from edge.report import render

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "report.png"
_WIDTH, _HEIGHT = 1200, 1500


def main(names: list[str]) -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not names:
        print(__doc__, file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        page_file.write_text(render([measurement.read(Path(name)) for name in names]), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.goto(page_file.as_uri())
        page.screenshot(path=PICTURE)
        browser.close()
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
