"""The edge's nginx configuration: `split_clients`, the same on one machine and a cluster."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from roiflow.errors import ServiceError
from roiflow.experiment.assignment import hundredths

SALT = "ad-ranker:"
"""Precedes the user id in the hash; another experiment takes another."""


@dataclass(frozen=True)
class Arm:
    """A share of the users and the server that answers them."""

    name: str
    percent: float
    upstream: str
    """host:port."""


_TEMPLATE = """\
# Written by roiflow; the next deployment writes it anew.
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;

events {{
    worker_connections 1024;
}}

http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 1m;
    client_body_buffer_size 1m; # no file: a worker may not be let into the folder

    # A user stays in one arm; a request without the header is split by its address.
    map $http_x_user_id $unit {{
        ""      $remote_addr;
        default $http_x_user_id;
    }}
    split_clients "{salt}$unit" $arm {{
{split}
    }}
{upstreams}
    server {{
        listen {listen};
        location = /edge {{
            default_type text/plain;
            return 200 "$arm {revision}\\n";
        }}
        location / {{
            proxy_pass http://$arm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Arm $arm;
            proxy_connect_timeout 1s;
            proxy_read_timeout 10s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
            add_header X-Arm $arm always;
        }}
    }}
}}
"""


def render(arms: Sequence[Arm], salt: str, listen: str, folder: str, workers: int = 1) -> str:
    """The configuration for `arms`; the last takes what the others leave.

    Every arm but the last falls back on the last, so a dead canary costs no slate. Raises
    ServiceError where the percentages do not add to 100 or a name is taken twice.
    """
    total = sum(hundredths(arm.percent) for arm in arms)
    if total != 10_000:
        shares = ", ".join(f"{arm.name} {arm.percent:g}" for arm in arms)
        raise ServiceError(f"arms add to {total / 100:g} percent, not 100: {shares}")
    if len({arm.name for arm in arms}) != len(arms):
        raise ServiceError(f"an arm's name is taken twice: {[arm.name for arm in arms]}")
    rest = arms[-1]
    split = [f"        {arm.percent:.2f}% {arm.name};" for arm in arms[:-1] if arm.percent > 0]
    split.append(f"        * {rest.name};")
    upstreams = [_upstream(arm, "" if arm is rest else rest.upstream) for arm in arms]
    values = {
        "workers": workers,
        "folder": folder,
        "salt": salt,
        "split": "\n".join(split),
        "upstreams": "".join(upstreams),
        "listen": listen,
    }
    digest = hashlib.sha256(repr(values).encode()).hexdigest()[:12]
    return _TEMPLATE.format(revision=digest, **values)


def revision(configuration: str) -> str:
    """What GET /edge answers beside the arm: which configuration is in force."""
    found = re.search(r'return 200 "\$arm (\w+)', configuration)
    if found is None:
        raise ServiceError("not a configuration of the edge: it has no revision")
    return found[1]


def _upstream(arm: Arm, backup: str) -> str:
    spare = f"\n        server {backup} backup;" if backup and backup != arm.upstream else ""
    return f"""
    upstream {arm.name} {{
        server {arm.upstream} max_fails=1 fail_timeout=2s;{spare}
        keepalive 64;
    }}
"""
