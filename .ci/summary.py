"""Adds up pytest's reports in one last line: ``N passed, 0 failed``."""

import sys
from xml.etree import ElementTree as ET


def main(reports: list[str]) -> None:
    """Print the sum, and fail where a test did or none ran."""
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for report in reports:
        for suite in ET.parse(report).iter("testsuite"):
            for count in total:
                total[count] += int(suite.get(count, "0"))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
