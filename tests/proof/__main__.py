"""Prints what Clarion claims, measured on the real thing: one row a figure, exit code 1 if a target is missed.

scripts/proof [engine|egress|capture|api] [--only NAME]... [--brief] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from proof import api, capture, egress, engine
from proof.figures import Figure

SUBJECTS = {"engine": engine.PROOFS, "egress": egress.PROOFS, "capture": capture.PROOFS, "api": api.PROOFS}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/proof", description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], metavar="subject", help=", ".join(SUBJECTS))
    parser.add_argument("--only", action="append", metavar="NAME", help="a proof of the subject, as `--list` names it")
    parser.add_argument("--brief", action="store_true", help="shorter runs: a minute or so for each proof")
    parser.add_argument("--list", action="store_true", help="names the proofs and what each does, and runs none")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of rows")
    options = parser.parse_args()
    proofs = {name: proof for subject in options.subjects or SUBJECTS for name, proof in SUBJECTS[subject].items()}
    if unknown := [name for name in options.only or () if name not in proofs]:
        parser.error(f"no proof is called {unknown[0]}; there are: {', '.join(proofs)}")
    if options.list:
        for name, proof in proofs.items():
            print(f"{name:12} {(proof.__doc__ or '').splitlines()[0]}")
        return 0
    figures: list[Figure] = []
    for name, proof in proofs.items():
        if options.only and name not in options.only:
            continue
        begun = time.monotonic()
        print(f"# {name}: {(proof.__doc__ or '').splitlines()[0]}", file=sys.stderr, flush=True)
        try:
            found = proof(options.brief)
        except Exception as error:
            print(f"# {name} broke: {type(error).__name__}: {error}", file=sys.stderr)
            found = [Figure(f"{name}: ran to its end", 0, "", 1, "exactly")]
        print(f"# {name} took {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        figures += found
        if not options.json:
            for figure in found:
                print(figure.row(), flush=True)
    failed = [figure for figure in figures if figure.verdict == "FAIL"]
    if options.json:
        print(json.dumps({"figures": [figure.as_json() for figure in figures], "failed": len(failed)}, indent=1))
    else:
        print(f"{len(figures)} figures, {len(failed)} missed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
