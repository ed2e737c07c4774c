"""Two network namespaces and nothing beside: `inside`, where Clarion runs, and `world`, where every address there is
answers. No packet leaves the machine. Needs root, iproute2 and nftables (Linux).

    inside ──veth── world: all addresses local (canaries, receivers, the name server)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.agent import Agent
from harness.process import clean_environment
from tls import make_authority

# Public addresses: that of the link itself must not be what a table forbids.
INSIDE_V4, WORLD_V4 = "185.12.0.1", "185.12.0.2"
INSIDE_V6, WORLD_V6 = "2a0a:e5c0::1", "2a0a:e5c0::2"
NAMESERVER = "194.150.168.53"
SEARCH_DOMAIN = "plant.example"

_HOSTS = """\
127.0.0.1 localhost
10.0.0.7 erp-in-hosts.example
::1 six-in-hosts.example
"""


def missing() -> str:
    """What has to be there for this and is not, in words; empty if nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("ip", "nft") if shutil.which(name) is None]
    return f"needs {' and '.join(absent)}: apt-get install iproute2 nftables" if absent else ""


@dataclass(frozen=True, slots=True)
class Network:
    """The namespaces' names, the agents in them, and the authority that the receivers in `world` are certified by."""

    inside_name: str
    world_name: str
    inside: Agent
    world: Agent
    ca_file: Path

    def prefix(self, name: str) -> list[str]:
        """What a command has to follow so that it runs in the namespace, with its resolver."""
        return ["ip", "netns", "exec", name]

    def add_source(self, address: str) -> None:
        """Gives `inside` one more address, which `world` answers to."""
        ip("-n", self.inside_name, "address", "replace", f"{address}/32", "dev", "out")
        ip("-n", self.world_name, "route", "replace", f"{address}/32", "dev", "in")

    def admit_only(self, receiver: str, sources: Sequence[str]) -> None:
        """A firewall in front of `receiver` that refuses whoever does not come from one of `sources`; replaces the last."""
        listed = ", ".join(sources)
        self._filter(f"ip daddr {receiver} tcp dport 443 ip saddr != {{ {listed} }} reject with tcp reset")

    def close(self, refusing: str, silent: str) -> None:
        """From now on the address `refusing` resets every connection and `silent` drops it; replaces other filters."""
        self._filter(f"ip daddr {refusing} tcp dport 443 reject with tcp reset; ip daddr {silent} drop")

    def _filter(self, rules: str) -> None:
        table = f"""
            table inet firewall
            delete table inet firewall
            table inet firewall {{
              chain input {{ type filter hook input priority 0; policy accept; {rules}; }}
            }}
        """
        command = [*self.prefix(self.world_name), "nft", "-f", "-"]
        subprocess.run(command, input=table.encode(), check=True, capture_output=True)

    def accepted(self) -> dict[str, int]:
        """Connections that any listener in either namespace accepted since the last call, by `address port`."""
        counts: dict[str, int] = self.world("counts")
        for where, count in self.inside("counts").items():
            counts[f"inside {where}"] = count
        return counts


def ip(*arguments: str) -> None:
    """The command `ip`. Raises CalledProcessError with what it said."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def network(
    directory: Path, addresses: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Network]:
    """Both namespaces, with the agents running. The certificate of all receivers holds `addresses` and `*.a.example`,
    `*.good.example`, `*.example`; `environment` is added to that of the agent inside.
    """
    inside, world = (f"clarion-{side}-{os.getpid()}" for side in ("in", "world"))
    files = Path("/etc/netns") / inside
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, files, ignore_errors=True)
        for name in (inside, world):
            ip("netns", "add", name)
            ending.callback(ip, "netns", "delete", name)
            # Addresses are usable at once, not after a second of looking for duplicates.
            _run_in(name, "sysctl", "-q", "-w", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
            ip("-n", name, "link", "set", "lo", "up")
        _connect(inside, world)
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text(f"nameserver {NAMESERVER}\nsearch {SEARCH_DOMAIN}\n")
        (files / "hosts").write_text(_HOSTS)
        (files / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
        authority = make_authority(directory)
        certificate, key = authority.issue(["*.a.example", "*.good.example", "*.example"], addresses)
        base = clean_environment(directory, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
        arguments = (str(certificate), str(key), NAMESERVER)
        there = ending.enter_context(
            Agent(["ip", "netns", "exec", world], "harness.world", *arguments, environment=base)
        )
        here = ending.enter_context(
            Agent(
                ["ip", "netns", "exec", inside],
                "harness.inside",
                str(authority.ca_file),
                environment=base | dict(environment or {}),
            )
        )
        _wait_for_both_families(here)
        there("counts")
        yield Network(inside, world, here, there, authority.ca_file)


def _run_in(name: str, *command: str) -> None:
    ip("netns", "exec", name, *command)


def _wait_for_both_families(inside: Agent, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while refused := {where: why for where, why in inside("connect", addresses=[WORLD_V4, WORLD_V6]).items() if why}:
        assert time.monotonic() < deadline, f"the link does not work: {refused}"


def _connect(inside: str, world: str) -> None:
    ip("link", "add", "out", "netns", inside, "type", "veth", "peer", "name", "in", "netns", world)
    for name, device, v4, v6 in ((inside, "out", INSIDE_V4, INSIDE_V6), (world, "in", WORLD_V4, WORLD_V6)):
        ip("-n", name, "address", "add", f"{v4}/30", "dev", device)
        ip("-n", name, "address", "add", f"{v6}/64", "dev", device, "nodad")
        ip("-n", name, "link", "set", device, "up")
    ip("-n", inside, "route", "add", "default", "via", WORLD_V4)
    ip("-n", inside, "-6", "route", "add", "default", "via", WORLD_V6)
    # Whatever comes in is for us: one listener is a canary on every address. In `main`, where the link's own routes are
    # more specific and answers find their way back.
    ip("-n", world, "route", "add", "local", "default", "dev", "lo", "table", "main")
    ip("-n", world, "-6", "route", "add", "local", "default", "dev", "lo", "table", "main")
