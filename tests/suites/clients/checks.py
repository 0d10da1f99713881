"""What the checks of the Python clients share."""

import sys
import time
import traceback


def endpoints():
    """Hosts and ports of the members, from the first argument: `host:port,host:port`."""
    pairs = (endpoint.rsplit(":", 1) for endpoint in sys.argv[1].split(","))
    return [(host, int(port)) for host, port in pairs]


def eventually(what, condition):
    """Waits until `condition` gives something true. The limit only ends a hopeless wait."""
    started = time.monotonic()
    while time.monotonic() - started < 60:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited in vain: {what}")


def before_it_ends(has_ended, call):
    """What `call` gives, which grants a short lease and uses it: again while the lease had ended before, which `has_ended`
    tells of an exception."""
    def tried():
        try:
            return [call()]
        except Exception as error:
            if not has_ended(error):
                raise
            return None

    return eventually("a use of a lease before its end", tried)[0]


def refused(kind, text, call):
    """Checks that `call` fails with an exception of `kind` whose text has `text`, and gives it."""
    try:
        value = call()
    except kind as error:
        assert text in str(error) or text in repr(error), f"{text!r} is not in {error!r}"
        return error
    raise AssertionError(f"answered {value!r}, expected {text!r}")


def run(checks):
    """Runs every function that is called `check_…`, in the order in which they are written."""
    for name, check in list(checks.items()):
        if not name.startswith("check_"):
            continue
        print(name, flush=True)
        try:
            check()
        except Exception:
            traceback.print_exc()
            sys.exit(f"FAILED: {name}")
    print("all checks passed")
