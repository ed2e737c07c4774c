"""Texts that must not be registered as a webhook URI, and that nothing may be sent to when they stand in the database.

By class; `good` in them is a host that would answer, so that a text that is read in two ways shows.
"""

# ruff: noqa: RUF001 - look-alike characters are what is tried

from __future__ import annotations

GOOD = "hooks.good.example"
"""Resolves to a public address where a receiver answers."""

_SCHEMES = ("http", "ftp", "file", "gopher", "dict", "ldap", "ws", "wss", "data", "javascript")

SCHEMES = [
    *(f"{scheme}://{GOOD}/" for scheme in _SCHEMES),
    *(
        GOOD,
        f"//{GOOD}",
        f"https:{GOOD}",
        f"https:/{GOOD}",
        f"https:///{GOOD}",
        f"://{GOOD}/",
        "https://",
        "https:",
        "",
    ),
    *("javascript:alert(1)", "data:text/plain,x", "file:///etc/passwd", f"https//{GOOD}", f"httpſ://{GOOD}/"),
]

USERINFO = [
    f"https://{authority}/"
    for authority in (
        *(f"u:p@{GOOD}", f"@{GOOD}", f":@{GOOD}", "u@[::1]", "@[::1]", f"{GOOD}@127.0.0.1", f"127.0.0.1@{GOOD}"),
        *(f"{GOOD}:443@127.0.0.1:443", f"127.0.0.1\\@{GOOD}", f"{GOOD}\\@127.0.0.1", f"127.0.0.1%2f@{GOOD}"),
        *(
            f"{GOOD};@127.0.0.1",
            f"127.0.0.1#@{GOOD}",
            f"{GOOD}?@127.0.0.1",
            f"{GOOD}%40127.0.0.1",
            f"127.0.0.1%40{GOOD}",
        ),
        *(f"{GOOD}\\127.0.0.1", f"127.0.0.1\\{GOOD}", f"a:b@c:d@{GOOD}"),
    )
]

_HIDDEN_CHARACTERS = [
    *(chr(code) for code in (*range(0x21), 0x7F, *range(0x80, 0xA1))),
    *("\u00ad", "\u034f", "\u061c", "\u180e", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u2028", "\u2029"),
    *("\u202a", "\u202e", "\u2060", "\u2066", "\u2069", "\u3000", "\ufe0f", "\ufeff", "\ufff9", "\U000e0001", "\\"),
]

CHARACTERS = [
    text
    for character in _HIDDEN_CHARACTERS
    for text in (
        f"{character}https://{GOOD}/",
        f"https://{GOOD}/{character}",
        f"https://{GOOD[:4]}{character}{GOOD[4:]}/",
        f"https://127.0.0.1{character}.{GOOD}/",
        f"https://{GOOD}/a?b={character}c",
    )
] + [f"https://{GOOD}/\r\nhost: 127.0.0.1\r\n", f"https://{GOOD}/?a=\r\n\r\nGET / HTTP/1.1", f"ht\ttps://{GOOD}/"]

REFUSED_PORTS = (
    *(1, 22, 25, 53, 80, 110, 143, 389, 442, 444, 445, 2375, 3306, 5432, 5672, 6379, 8080, 8442, 8444, 8500, 9200),
    *(10250, 11211, 27017, 65535),
)

PORTS = [
    *(f"https://{GOOD}:{port}/" for port in REFUSED_PORTS),
    *(f"https://8.8.8.8:{port}/" for port in REFUSED_PORTS),
    *(
        f"https://{GOOD}:{port}/"
        for port in (
            "0",
            "65536",
            "+443",
            "-443",
            "４４３",
            "443:443",
            "",
            " 443",
            "0443",
            "443a",
            "0x1bb",
            "99999999999",
        )
    ),
]

LITERALS = [
    f"https://{authority}/"
    for authority in (
        *(
            "[127.0.0.1]",
            f"[::1].{GOOD}",
            f"{GOOD}[::1]",
            "[::1%25lo]",
            "[::1%lo]",
            "[fe80::1%25eth0]",
            "::1",
            "[::1",
            "::1]",
        ),
        *("[]", "[v1.x]", "[::1]x:443", "[[::1]]", "[2606:4700::1111%25out]", "2606:4700::1111", "[8.8.8.8]", "[:]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::１]", "[2606:4700:0:0:0:0:0:0:1111]"),
    )
]

SHAPES = [
    *(
        f"https://{host}/"
        for host in (f"{GOOD}.", f".{GOOD}", f"hooks..{GOOD}", f"%68ooks.{GOOD}", f"-a.{GOOD}", f"a-.{GOOD}")
    ),
    *(
        f"https://{host}/"
        for host in (f"a_b.{GOOD}", f"{'a' * 64}.{GOOD}", f"{'a.' * 125}{GOOD}", f"*.{GOOD}", f"a!.{GOOD}")
    ),
    *(
        f"https://{GOOD}/{'a' * 2048}",
        f"https://{GOOD}/#x",
        f"https://{GOOD}#",
        f"https://{GOOD}/%",
        f"https://{GOOD}/%g0",
    ),
    *(f"https://{GOOD}?a", f'https://{GOOD}/"', f"https://{GOOD}/<", f"https://{GOOD}/ä", f"https://{GOOD}/?[ä]"),
]

NUMBERS = [
    f"https://{host}/"
    for host in (
        *(
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "127.000.000.001",
            "0",
            "00",
            "0x0.0",
        ),
        *(
            "127.0.0.1.",
            "127.1.",
            "4294967296",
            "4294967295",
            "0x7F.0x0.0x0.0x1",
            "017700000001",
            "127.0.0.0x1",
            "1.1.1",
        ),
        *(
            "08.8.8.8",
            "8.8.8.08",
            "256.256.256.256",
            "127.0.0.1.1",
            "0x",
            "0xg.0x1",
            f"{GOOD}.1",
            f"{GOOD}.0x1",
            "10.1",
        ),
        *("169.254.43518", "0xa9fea9fe", "0251.0376.0251.0376", "2852039166", "192.168.257", "1.2.3.4.5.6"),
    )
]

LOOK_ALIKES = [
    f"https://{host}/"
    for host in (
        *(
            "①②⑦.⓪.⓪.①",
            "１２７.0.0.1",
            "127。0。0。1",
            "127．0．0．1",
            "127｡0｡0｡1",
            "ⓛocalhost",
            "ｌocalhost",
            "localhoſt",
        ),
        *(
            f"xn--.{GOOD}",
            f"xn--a.{GOOD}",
            f"xn--localhost-.{GOOD}",
            f"xn--a-ecp.{GOOD}",
            f"xn--0.{GOOD}",
            "xn--127.0.0.1",
        ),
        *(
            f"xn--zz--.{GOOD}",
            f"xn--8.{GOOD}",
            f"faß＠.{GOOD}",
            f"a‥b.{GOOD}",
            f"½.{GOOD}",
            f"℀.{GOOD}",
            "169。254。169。254",
        ),
    )
]

INSIDE_NAMES = [
    f"https://{host}/"
    for host in (
        *("localhost", "LOCALHOST", "LocalHost", "localhost.", "a.localhost", "localhost.localdomain", "ip6-localhost"),
        *("ip6-loopback", "printer.local", "vault.internal", "nas.lan", "router.home.arpa", "kubernetes.default.svc"),
        *(
            "kubernetes.default.svc.cluster.local",
            "metadata",
            "metadata.google.internal",
            "host.docker.internal",
            "a.onion",
        ),
        *(
            "a.test",
            "a.invalid",
            "intranet",
            "erp",
            "db.corp",
            "x.home",
            "x.private",
            "x.intranet",
            "METADATA.Google.INTERNAL",
        ),
        *(
            "metadata.google.internal.",
            "a.alt",
            "gateway.docker.internal",
            "wpad",
            "broadcasthost",
            "com",
            "erp-in-hosts",
        ),
    )
]

REGISTRABLE = [
    *(f"https://{GOOD}/echo", f"https://{GOOD}:8443/echo", f"HTTPS://{GOOD.upper()}/echo", "https://8.8.8.8/echo"),
    *(f"https://{GOOD}:443/echo?a[]=b;v=@1", "https://bücher.good.example/echo", "https://[2606:4700::1111]:8443/echo"),
    "https://[2606:4700:0:0:0:0:0:1111]/echo",
]
"""Positive controls: may be registered, and are answered."""

BY_SYNTAX = {
    "schemes": SCHEMES,
    "user and password": USERINFO,
    "hidden characters": CHARACTERS,
    "ports": PORTS,
    "literals": LITERALS,
    "shapes": SHAPES,
}
"""Refused with the precise reason, or as an address: INVALID_INPUT or ADDRESS_NOT_ALLOWED."""

BY_ADDRESS = {"numbers": NUMBERS, "look-alikes": LOOK_ALIKES, "inside names": INSIDE_NAMES}
"""Refused as an address, all with one text."""
