"""`docs/operations/alerts.yml`: rules that Prometheus reads, over metrics and labels that there are."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests.docs.pages import REFERENCE, ROOT, rows

RULES = ROOT / "docs" / "operations" / "alerts.yml"
METRICS = {
    row[0].strip("`"): set(row[2].split(", ")) if row[1] in ("counter", "gauge") and len(row) == 4 else set()
    for row in rows((REFERENCE / "metrics.md").read_text(encoding="utf-8"))
    if row[0].startswith("`c360_")
}


def test_each_rule_is_over_metrics_and_labels_that_are_printed() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        named = re.findall(r"\bc360_\w+", rule["expr"])
        assert named, rule["alert"]
        assert set(named) <= METRICS.keys(), rule["alert"]
        wanted = {label for group in re.findall(r"by \(([\w, ]+)\)", rule["expr"]) for label in group.split(", ")}
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert wanted <= set.intersection(*(METRICS[name] for name in named)) or "reason" in wanted, rule["alert"]
        assert told <= (wanted or METRICS[named[0]]), rule["alert"]
        assert rule["annotations"]["summary"]


def test_prometheus_takes_them() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: it comes with Prometheus")
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
