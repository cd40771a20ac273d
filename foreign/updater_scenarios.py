"""python-tuf's own tests of its client, with our client in the place of its.

    updater_scenarios.py CLIENT SDIST

CLIENT takes the command line of the public conformance suite, and `find`; SDIST is the unpacked sdist of
`tuf`, whose tests bring a repository simulator. Each call of an `Updater` becomes a run of CLIENT against
that simulator over HTTP. Prints how many cases ran (a test, or each of its data sets), and which did not.
"""

import collections
import datetime
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

import tuf.ngclient
from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import UpdaterConfig

CLIENT, SDIST = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])

MODULES = ["consistent_snapshot", "delegation_graphs", "fetch_target", "key_rotations", "ng", "top_level_update"]

# What can't be asked of another client.
PYTHON_FILES = "watches which files python-tuf opens, or keeps beside the specification's"
PYTHON_INTERFACE = "looks at arguments and objects of python-tuf itself"
SUCCINCT = "succinct hash bins are an extension (TAP 15) that our repositories don't use"
LEFT_OUT = {
    "test_not_loading_targets_twice": PYTHON_FILES,
    "test_load_metadata_from_cache": PYTHON_FILES,
    "test_intermediate_root_cache": PYTHON_FILES,
    "test_intermediate_root_cache_poisoning": PYTHON_FILES,
    "test_both_target_urls_not_set": PYTHON_INTERFACE,
    "test_no_target_dir_no_filepath": PYTHON_INTERFACE,
    "test_length_hash_mismatch": PYTHON_INTERFACE,
    "test_persist_metadata_fails": PYTHON_INTERFACE,
    "test_invalid_target_base_url": PYTHON_INTERFACE,
    "test_non_existing_target_file": PYTHON_INTERFACE,
    "test_user_agent": PYTHON_INTERFACE,
    "test_succinct_roles_graph_traversal": SUCCINCT,
    "test_download_targets_with_succinct_roles": SUCCINCT,
    "test_meta_missing_delegated_role": "looks for a target without a name, which no path of ours can be",
}
NO_PREFIX = "target files without a hash in their names, under consistent snapshots, are an option of python-tuf"

# What python-tuf's configuration can limit, and what CLIENT calls the same.
LIMITS = {
    "max_root_rotations": "roots",
    "max_delegations": "visited-roles",
    "root_max_length": "root-bytes",
    "timestamp_max_length": "timestamp-bytes",
    "snapshot_max_length": "snapshot-bytes",
    "targets_max_length": "targets-bytes",
}

# Our messages, and what python-tuf calls the same.
ERRORS = [
    (r"has \d+ of \d+ signatures that it needs", exceptions.UnsignedMetadataError),
    (r"was rolled back from version", exceptions.BadVersionNumberError),
    (r"should be version", exceptions.BadVersionNumberError),
    (r"expired at", exceptions.ExpiredMetadataError),
    (r"does not have the length and hashes", exceptions.LengthOrHashMismatchError),
    (r"is longer than \d+ bytes", exceptions.DownloadLengthMismatchError),
    (r"no trusted root metadata", OSError),
    (r"could not be fetched", exceptions.DownloadHTTPError),
    (r"is malformed|does not list", exceptions.RepositoryError),
]


class Simulated(http.server.BaseHTTPRequestHandler):
    """python-tuf's repository simulator over HTTP."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    simulator = None

    def do_GET(self):
        try:
            # The simulator takes targets by their paths, and the names of roles as they are in URLs.
            path = urllib.parse.unquote(self.path) if self.path.startswith("/targets/") else self.path
            status, body = 200, b"".join(self.simulator.fetch("https://example.com" + path))
        except exceptions.DownloadHTTPError as error:
            status, body = error.status_code, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


SERVER = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Simulated)


class Updater:
    """python-tuf's `Updater`, whose work is done by CLIENT."""

    def __init__(self, metadata_dir, metadata_base_url, target_dir=None, target_base_url=None, fetcher=None,
                 config=None, *, bootstrap):
        self.dir, self.target_dir, self.simulator = metadata_dir, target_dir, fetcher
        self.config = config or UpdaterConfig()
        if fetcher is not None:
            metadata_base_url = f"http://127.0.0.1:{SERVER.server_port}/metadata/"
            target_base_url = f"http://127.0.0.1:{SERVER.server_port}/targets/"
        self.metadata_url, self.target_url = metadata_base_url, target_base_url
        self.refreshed = False
        if bootstrap is not None and not os.path.exists(os.path.join(metadata_dir, "root.json")):
            os.makedirs(metadata_dir, exist_ok=True)
            with tempfile.NamedTemporaryFile() as root:
                root.write(bootstrap)
                root.flush()
                self.run("init", root.name)
        elif bootstrap is None and not os.path.exists(os.path.join(metadata_dir, "root.json")):
            # python-tuf is not set up by its user's call, ours is: nothing to run yet.
            raise OSError("no trusted root metadata")

    @property
    def _trusted_set(self):
        root = Metadata.from_file(os.path.join(self.dir, "root.json")).signed
        return collections.namedtuple("TrustedSet", "root")(root)

    def run(self, *arguments):
        if not self.config.prefix_targets_with_hash:
            raise unittest.SkipTest(NO_PREFIX)
        Simulated.simulator = self.simulator
        command = [CLIENT, "--metadata-dir", self.dir, "--metadata-url", self.metadata_url]
        for theirs, ours in LIMITS.items():
            limit = getattr(self.config, theirs)
            if limit != getattr(UpdaterConfig(), theirs):
                # We count the top-level targets among the roles that are visited.
                command += ["--limit", f"{ours}={limit + (theirs == 'max_delegations')}"]
        # A test may have moved Python's clock; the kernel's is where it was.
        moved = datetime.datetime.now(datetime.timezone.utc).timestamp() - time.clock_gettime(time.CLOCK_REALTIME)
        if abs(moved) > 60:
            command = ["faketime", "-f", f"{moved:+.0f}s"] + command
        done = subprocess.run(command + list(arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            for message, error in ERRORS:
                if re.search(message, done.stderr):
                    raise error(done.stderr, 404) if error is exceptions.DownloadHTTPError else error(done.stderr)
            raise AssertionError(f"{command} {arguments}: {done.stderr}")
        return done.stdout

    def refresh(self):
        self.run("refresh")
        self.refreshed = True

    def again(self, *arguments):
        """A process of its own looks for a new root and timestamp first, which python-tuf has done."""
        seen = None if self.simulator is None else self.simulator.fetch_tracker.metadata
        before = 0 if seen is None else len(seen)
        try:
            return self.run(*arguments)
        finally:
            if seen is not None and self.refreshed:
                first = [role for role, _ in seen[before : before + 2]]
                assert first == ["root", "timestamp"], seen
                del seen[before : before + 2]
            self.refreshed = True

    def get_targetinfo(self, target_path):
        found = json.loads(self.again("--target-name", target_path, "find"))
        return found and TargetFile.from_dict(found, target_path)

    def file_of(self, info, filepath):
        return filepath or os.path.join(self.target_dir, urllib.parse.quote(info.path, ""))

    def find_cached_target(self, info, filepath=None):
        path = self.file_of(info, filepath)
        try:
            with open(path, "rb") as file:
                info.verify_length_and_hashes(file)
            return path
        except (OSError, exceptions.RepositoryError):
            return None

    def download_target(self, info, filepath=None, target_base_url=None):
        with tempfile.TemporaryDirectory() as folder:
            base = ["--target-base-url", target_base_url or self.target_url, "--target-dir", folder]
            self.again("--target-name", info.path, *base, "download")
            (name,) = os.listdir(folder)
            return shutil.copy(os.path.join(folder, name), self.file_of(info, filepath))


class Count(unittest.TextTestResult):
    """Counts each data set of a test as a case."""

    cases = 0

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        self.cases += 1
        test.has_data_sets = True

    def addSuccess(self, test):
        super().addSuccess(test)
        self.cases += not hasattr(test, "has_data_sets")


def chosen(suite, left_out):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from chosen(one, left_out)
        elif one._testMethodName in LEFT_OUT:
            left_out.append((one.id(), LEFT_OUT[one._testMethodName]))
        else:
            yield one


def main():
    threading.Thread(target=SERVER.serve_forever, daemon=True).start()
    tuf.ngclient.Updater = Updater
    sys.path.insert(0, SDIST)
    with tempfile.TemporaryDirectory() as folder:
        # Some tests serve, and write, their working folder.
        shutil.copytree(os.path.join(SDIST, "tests"), os.path.join(folder, "tests"))
        os.chdir(os.path.join(folder, "tests"))
        suite = unittest.defaultTestLoader.loadTestsFromNames([f"tests.test_updater_{name}" for name in MODULES])
        left_out = []
        tests = unittest.TestSuite(chosen(suite, left_out))
        result = unittest.TextTestRunner(sys.stderr, resultclass=Count, buffer=True).run(tests)
        os.chdir("/")
    skipped = [(test.id(), reason) for test, reason in result.skipped]
    for name, reason in left_out + skipped:
        print(f"left out: {name.removeprefix('tests.')}: {reason}")
    print(f"{result.cases} cases passed, {len(result.failures) + len(result.errors)} failed")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
