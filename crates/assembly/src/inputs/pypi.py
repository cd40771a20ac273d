"""Asks the Python index through pip's own finder, so that its configured index, proxy and
certificates are used, and downloads a file as it is. No package's code ever runs: `pip download`
would run an sdist's build backend for its metadata."""

import json
import sys

from pip._internal.commands import create_command

FILE_BYTES_MAX = 1 << 30


def main(action, project, version, *rest):
    command = create_command("download")
    options, _ = command.parse_args(["--no-cache-dir", "--disable-pip-version-check", project])
    options.find_links = []
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session)
        found = [
            candidate.link
            for candidate in finder.find_all_candidates(project)
            if str(candidate.version) == version and candidate.link.hash_name == "sha256"
        ]
        if action == "list":
            for link in found:
                print(json.dumps({"file": link.filename, "sha256": link.hash}))
            return
        wanted, destination = rest
        links = [link for link in found if link.filename == wanted]
        if not links:
            sys.exit(f"{wanted} is not in the index")
        answer = session.get(links[0].url_without_fragment, headers={"Accept-Encoding": "identity"}, stream=True)
        answer.raise_for_status()
        size = 0
        with open(destination, "wb") as file:
            for chunk in answer.raw.stream(1 << 16, decode_content=False):
                size += len(chunk)
                if size > FILE_BYTES_MAX:
                    sys.exit(f"{wanted} is larger than {FILE_BYTES_MAX} bytes")
                file.write(chunk)


main(*sys.argv[1:])
