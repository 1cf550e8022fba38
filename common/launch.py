"""torchrun, ended with the failing rank's exit code and its reason in one line.

    python -m common.launch [torchrun options] -m waveglow.train [options]

torchrun itself ends with 1 whatever happened, and names the lowest rank when several failed.
"""

import argparse
import importlib
import logging
import os
import signal
import socket
import sys

import torch
from torch.distributed import Store, run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from common import meeting
from common.program import LAUNCHER, UserError

DEFAULT_PORT = 29500
"torchrun's."
LIMIT = 1800.0
"Seconds to wait for the launchers of other machines, unless the program has a --hang_limit."


def main(argv: list[str]) -> int:
    """Run torchrun with these arguments; the exit code."""
    # torchrun reports failures in a long table of its own; ours is one line.
    logging.disable(logging.CRITICAL)
    parser = run.get_args_parser()
    # Older PyTorch has 29500 here, which serves one run at a time.
    parser.set_defaults(master_port=os.environ.get("PET_MASTER_PORT"))
    args = parser.parse_args(argv)
    check_options(args.training_script, args.training_script_args)
    # Share the cores among the processes; torchrun would give each one thread.
    threads = torch.get_num_threads() // run.determine_local_world_size(args.nproc_per_node)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    try:
        port = choose_port(args)
        if port and int(args.node_rank) == 0 and not port_is_free(port):
            return complain(f"port {port} is taken: choose another --master_port", 1)
        os.environ[LAUNCHER] = str(os.getpid())
        _store = meet_other_machines(args)  # on the first machine it is served as long as this name lives
        run.run(args)
    except UserError as error:
        return complain(str(error), 1)
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        return complain(f"rank {rank} failed: {failure.message}", exit_code(failure))
    except SignalException as error:
        return complain(f"stopped by {error.sigval.name}", 128 + error.sigval)
    except Exception as error:
        return complain(f"the processes did not start: {error}", 1)
    return 0


def check_options(program: str, given: list[str]) -> None:
    """End with 2 and the program's own message for options that are wrong, before processes are started for them."""
    if not program.endswith(".py"):
        read_arguments = getattr(importlib.import_module(program), "read_arguments", None)
        if read_arguments:
            read_arguments(given)


def choose_port(args: argparse.Namespace) -> int | None:
    """The port on the first machine where the processes are to meet; None if torchrun finds a free one, as it can
    where all of them are on this machine."""
    is_static = args.rdzv_backend == "static" and not args.rdzv_endpoint and not args.standalone
    if is_static and args.master_port is None and run.parse_min_max_nnodes(args.nnodes)[1] == 1:
        # localhost, since the machine's own name cannot be resolved everywhere.
        args.standalone, args.local_addr = True, args.local_addr or "localhost"
        is_static = False
    args.master_port = args.master_port or DEFAULT_PORT
    return args.master_port if is_static else None


def meet_other_machines(args: argparse.Namespace) -> Store | None:
    """Wait for their launchers at the store that torchrun will use, too: torchrun itself waits without a word.

    UserError that names the machines which do not come.
    """
    _, machines = run.parse_min_max_nnodes(args.nnodes)
    if machines == 1 or args.rdzv_backend != "static" or args.rdzv_endpoint:
        return None
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    number, limit = int(args.node_rank), hang_limit(args.training_script_args)
    store = meeting.connect(args.master_addr, args.master_port, number == 0, limit, say)
    met = meeting.meet(store, "machine", number, machines, {"--nnodes": args.nnodes}, limit, say)
    meeting.check_same(met, "start all of them with the same --nnodes")
    return store


def hang_limit(options: list[str]) -> float:
    """The --hang_limit in the program's options, but at least ``meeting.SAY_AFTER``; LIMIT if there is none."""
    given = [option.partition("=")[2] for option in options if option.startswith("--hang_limit=")]
    return max(meeting.SAY_AFTER, float(given[-1])) if given and given[-1].isdecimal() else LIMIT


def first_failure(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank whose failure made the others fail.

    First comes a rank that reported an error of its own. A rank killed from outside leaves no
    word, but its peers report the broken connection. SIGTERM is torchrun's, to end the rest.
    """

    def order(rank: int) -> tuple[int, float]:
        failure = failures[rank]
        report = failure.error_file_data
        if "timestamp" in report:
            return (2 if report.get("by_peer") else 0), report["timestamp"]
        return (3 if failure.exitcode == -signal.SIGTERM else 1), failure.timestamp

    rank = min(failures, key=order)
    return rank, failures[rank]


def exit_code(failure: ProcessFailure) -> int:
    """The code that a rank reported with its error, else as a shell counts it: 128 + N for signal N."""
    if "code" in failure.error_file_data:
        # It may have been ended by torchrun meanwhile, because another rank was the first to have ended.
        return failure.error_file_data["code"]
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def port_is_free(port: int) -> bool:
    """Whether this machine can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def complain(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
