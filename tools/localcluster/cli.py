"""The command line: `python -m localcluster COMMAND`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster import binaries, cluster, processes, selfcheck
from localcluster.errors import ClusterError
from localcluster.leftovers import leftovers
from localcluster.progress import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except BrokenPipeError:
        # The reader of the pipe (`head`) has ended. The interpreter must not flush into the pipe at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next `up` or `down` clears what was begun")
        return 130


def _run(options: argparse.Namespace) -> int:
    code = int(options.run(options) or 0)
    sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="localcluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="bring the cluster up, or extend the one that runs")
    up.add_argument("--nodes", type=int, default=1, metavar="N", help="1 or 2 (default 1)")
    up.add_argument("--gpus", type=int, metavar="N", help="fake GPUs of each node")
    up.add_argument("--images", type=Path, nargs="+", default=[], metavar="ARCHIVE")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="take it down and leave nothing behind")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", help="components, nodes and addresses")
    status.set_defaults(run=_status)

    env = commands.add_parser("env", help="print `export` lines for a shell")
    env.set_defaults(run=_env)

    logs = commands.add_parser("logs", help="print a component's log")
    logs.add_argument("component", nargs="?", help="without it: the names there are")
    logs.set_defaults(run=_logs)

    left = commands.add_parser("leftovers", help="list what is on the machine; 1 when anything is")
    left.set_defaults(run=_leftovers)

    for command in (up, down, status, env, logs, left):
        command.add_argument(
            "--control-plane-only",
            action="store_true",
            help="the plane without node, DNS and S3; stands beside the cluster",
        )

    load = commands.add_parser("load", help="import image archives into every node")
    load.add_argument("archives", type=Path, nargs="+", metavar="ARCHIVE")
    load.set_defaults(run=_load)

    check = commands.add_parser("selfcheck", help="try every service and lever on the running cluster")
    check.add_argument("only", nargs="*", help="names of checks; all by default")
    check.set_defaults(run=_selfcheck)

    build = commands.add_parser("build", help="build the programs only")
    build.set_defaults(run=_build)
    return parser


def _up(options: argparse.Namespace) -> None:
    plane = cluster.up(
        options.nodes,
        options.gpus,
        options.images,
        control_plane_only=options.control_plane_only,
    )
    print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")


def _down(options: argparse.Namespace) -> None:
    cluster.down(control_plane_only=options.control_plane_only)


def _status(options: argparse.Namespace) -> int:
    plane = _found(options)
    print(f"API server  {plane.api_server}\nkubeconfig  {plane.kubeconfig}")
    if plane.record.s3:
        print(f"S3          {plane.s3.endpoint}")
    print(f"audit log   {plane.audit.path}")
    for node in plane.nodes:
        ready = "Ready" if plane.is_ready(node.name) else "NotReady"
        gpus = plane.record.gpus.get(node.name, 0)
        print(f"{node.name}      {ready}, {node.address}, {gpus} fake GPUs")
    components = plane.components()
    for component in components:
        state = f"{component.memory_mib} MiB" if component.running else "ENDED"
        print(f"  {component.name:<24} pid {component.pid:<8} {state}")
    return 0 if all(component.running for component in components) else 1


def _env(options: argparse.Namespace) -> None:
    plane = _found(options)
    values = {"KUBECONFIG": str(plane.kubeconfig), "KUBECTL": plane.kubectl.program}
    if s3 := plane.record.s3:
        assert s3.reader is not None
        values |= {
            "S3_ENDPOINT": s3.endpoint,
            "S3_POD_ENDPOINT": s3.pod_endpoint,
            "S3_REGION": s3.region,
            "S3_ACCESS_KEY": s3.admin.access_key,
            "S3_SECRET_KEY": s3.admin.secret_key,
            "S3_READER_ACCESS_KEY": s3.reader.access_key,
            "S3_READER_SECRET_KEY": s3.reader.secret_key,
        }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")


def _logs(options: argparse.Namespace) -> None:
    home = cluster.home_of(control_plane_only=options.control_plane_only)
    names = sorted(path.stem for path in home.logs.glob("*.log"))
    if options.component is None:
        print("\n".join(names))
        return
    if options.component not in names:
        raise ClusterError(f"no log of {options.component}; there are: {', '.join(names)}")
    text = processes.log_of(home, options.component).read_text(errors="replace")
    sys.stdout.write(text)


def _leftovers(options: argparse.Namespace) -> int:
    home = cluster.home_of(control_plane_only=options.control_plane_only)
    left = leftovers(home, with_node=not options.control_plane_only)
    for line in left:
        print(line)
    return 1 if left else 0


def _load(options: argparse.Namespace) -> None:
    options.control_plane_only = False
    plane = _found(options)
    for archive in options.archives:
        for name in plane.load_image(archive):
            print(name)


def _selfcheck(options: argparse.Namespace) -> int:
    options.control_plane_only = False
    return selfcheck.run(_found(options), options.only)


def _build(_: argparse.Namespace) -> None:
    binaries.build(binaries.KUBERNETES, binaries.COREDNS)
    for module in (binaries.KUBERNETES, binaries.COREDNS):
        print(module.folder)


def _found(options: argparse.Namespace) -> cluster.LocalCluster:
    plane = cluster.find(control_plane_only=options.control_plane_only)
    if plane is None:
        raise ClusterError("no cluster is up: `make cluster` starts one")
    return plane
