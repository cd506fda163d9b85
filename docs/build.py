"""Build the reference: one page per room, with its guides, and a page per public module.

    python docs/build.py FOLDER

The guides are the Markdown files next to the code; a room's docstring includes them.
"""

import sys
from pathlib import Path

import pdoc

import weightdecay

PACKAGE = Path(weightdecay.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def main(folder: str) -> None:
    """Write the reference as HTML.

    Args:
      folder: Where to write it; begin with ``index.html``.
    """
    pdoc.render.configure(docformat="google")
    internal = [room for room in ROOMS if room not in weightdecay.__all__]
    pages = [f"weightdecay.{room}" for room in internal]
    files = rf"!weightdecay\.(?:{'|'.join(internal)})\..*"  # of a room that users do not import, its page is enough
    pdoc.pdoc("weightdecay", *pages, files, output_directory=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
