# SPDX-License-Identifier: Apache-2.0
"""Compares two runs of pkcs11-check: what SoftHSM passes and our module fails must be explained.

compare.py SOFTHSM.xml OURS.xml EXPLANATIONS.md

The runs are JUnit's XML. In the explanations, a test is a line "- `FILE::CLASS::NAME`" below a heading
that says why; "*" stands for any text. A line "- `[MECHANISM]`" names one that we do not have: its tests
are not there then. A difference that no line names is a failure, and so is a line that names none; but for a
line "- sometimes `...`", of a test that measures time: that one must only be there.
"""

import fnmatch
import re
import sys
import xml.etree.ElementTree as ET

softhsm, ours, explanations = sys.argv[1:]


def outcome_of(case):
    for child in case:
        if child.tag in ("failure", "error"):
            return "failed", child.get("message", "")
        if child.tag == "skipped":
            return ("xfailed" if child.get("type") == "pytest.xfail" else "skipped"), child.get("message", "")
    return "passed", ""


def read(path):
    """{name: (outcome, why)}; a name is FILE::CLASS::NAME, the file below the package's testcases."""
    results = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        parts = case.get("classname").split("testcases.")[-1].split(".")
        # the first part that is a file's is followed by the classes
        at = next(i for i, part in enumerate(parts) if part.startswith("test_"))
        name = "::".join(["/".join(parts[: at + 1]) + ".py", *parts[at + 1:], case.get("name")])
        if results.get(name, ("passed",))[0] == "passed":  # a test and its teardown are two cases
            results[name] = outcome_of(case)
    return results


def shown(why):
    return re.sub(r"\s+", " ", why)[:160]


theirs, mine = read(softhsm), read(ours)
with open(explanations, encoding="utf-8") as text:
    lines = re.findall(r"^- (sometimes )?`([^`]+)`", text.read(), re.MULTILINE)
patterns = [pattern for _, pattern in lines]
sometimes = {pattern for often, pattern in lines if often and pattern in theirs}
needed = dict.fromkeys(patterns, 0)
failed = 0
passed = 0
explained = 0
counts = {}
for name, (outcome, _) in sorted(theirs.items()):
    got, why = mine.get(name, ("not run", ""))
    counts[got] = counts.get(got, 0) + 1
    if outcome != "passed":
        continue
    if got in ("passed", "skipped"):  # skipped: the token says that it does not have this
        passed += got == "passed"
        continue
    # test names have brackets, which are no pattern here
    by = [p for p in patterns if fnmatch.fnmatchcase(name, p.replace("[", "[[]"))]
    if got == "not run" and not by:
        by = [p for p in patterns if p.startswith("[") and name.endswith(p)]
    for pattern in by:
        needed[pattern] += 1
    if by:
        explained += 1
    else:
        failed += 1
        print(f"FAIL: not explained: {got} {name}: {shown(why)}")
for pattern, uses in needed.items():
    if uses == 0 and pattern not in sometimes:
        failed += 1
        print(f"FAIL: explained, but no difference any more: {pattern}")
print("SoftHSM: " + ", ".join(f"{sum(o == kind for o, _ in theirs.values())} {kind}"
                               for kind in ("passed", "failed", "xfailed", "skipped")))
print("ours: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
also = sum(1 for name, (o, _) in mine.items() if o == "passed" and theirs.get(name, ("",))[0] not in ("passed",))
print(f"ours passes {also} that SoftHSM does not; {explained} that it passes are explained")
print(f"pkcs11-check: {passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed or not passed else 0)
