"""Reads a page of numbers from standard input with Prometheus's own parser, prints its samples as JSON.

`--rules FILE`: reads a file of alert rules instead and prints the rules' names.
"""

import json
import sys

if sys.argv[1:2] == ["--rules"]:
    import yaml

    with open(sys.argv[2], encoding="utf-8") as file:
        groups = yaml.safe_load(file)["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        assert rule["expr"].strip() and rule["labels"]["severity"] and rule["annotations"]["summary"], rule
    print(json.dumps([rule["alert"] for rule in rules]))
else:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    families = text_string_to_metric_families(sys.stdin.read())
    samples = [sample for family in families for sample in family.samples]
    print(json.dumps([{"name": it.name, "labels": it.labels, "value": it.value} for it in samples]))
