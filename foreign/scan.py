"""Scans files with an engine that is not ours: `scan.py yara|yara-x RULES < paths`.

Prints one JSON object a file in which something was found (`path`, `rules`), and one with the times
at the end. Files are read as a whole, and rules may ask for the same names as in our scanner.
"""

import json
import sys
import time

EXTERNALS = ("filename", "filepath", "extension", "filetype", "owner")
KINDS = ((b"MZ", "EXE"), (b"\x7fELF", "ELF"), (b"PK\x03\x04", "ZIP"), (b"%PDF", "PDF"))
LIMIT_BYTES = 256 << 20


def described(path, content):
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    at = name.rfind(".")
    kind = next((kind for magic, kind in KINDS if content.startswith(magic)), "")
    return dict(zip(EXTERNALS, (name, path, name[at:] if at >= 0 else "", kind, "")))


class Yara:
    def __init__(self, source):
        import yara

        self.rules = yara.compile(source=source, externals=dict.fromkeys(EXTERNALS, ""), includes=False)

    def names(self, path, content):
        matches = self.rules.match(data=content, externals=described(path, content), timeout=600)
        return [match.rule for match in matches]


class YaraX:
    def __init__(self, source):
        import yara_x

        compiler = yara_x.Compiler(relaxed_re_syntax=True)
        for name in EXTERNALS:
            compiler.define_global(name, "")
        compiler.add_source(source)
        self.scanner = yara_x.Scanner(compiler.build())

    def names(self, path, content):
        for name, value in described(path, content).items():
            self.scanner.set_global(name, value)
        return [rule.identifier for rule in self.scanner.scan(content).matching_rules]


def main():
    engine, rules = sys.argv[1:]
    with open(rules, encoding="utf-8") as file:
        source = file.read()
    began = time.monotonic()
    engine = {"yara": Yara, "yara-x": YaraX}[engine](source)
    compiled = time.monotonic()
    files = total = 0
    for line in sys.stdin:
        path = line.rstrip("\n")
        with open(path, "rb") as file:
            content = file.read(LIMIT_BYTES)
        files, total = files + 1, total + len(content)
        names = engine.names(path, content)
        if names:
            print(json.dumps({"path": path, "rules": sorted(names)}))
    done = time.monotonic()
    print(json.dumps({"files": files, "bytes": total, "compile_s": compiled - began, "scan_s": done - compiled}))


main()
