"""Makes the links of a Markdown file absolute, in place, so that they work outside of the repository.

python .github/absolute_links.py README.md OWNER/REPOSITORY TAG
"""

import re
import sys
from pathlib import Path


def absolute(text: str, repository: str, tag: str) -> str:
    """Returns the text with absolute links: pictures to their content, other files to their page at GitHub."""

    def replaced(found: re.Match[str]) -> str:
        target = found[1]
        if target.startswith("../../"):  # a page of the repository at GitHub, such as its workflows
            return f"](https://github.com/{repository}/{target.removeprefix('../../')})"
        if target.endswith(".png"):
            return f"](https://raw.githubusercontent.com/{repository}/{tag}/{target})"
        return f"](https://github.com/{repository}/blob/{tag}/{target})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", replaced, text)


if __name__ == "__main__":
    file, repository, tag = sys.argv[1:]
    Path(file).write_text(absolute(Path(file).read_text(), repository, tag))
