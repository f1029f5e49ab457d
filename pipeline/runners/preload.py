"""Imported by the fork server, and only there: loads what every node needs, runs nothing.

What is imported here is shared by all children through fork, so it must leave no TensorFlow context, no gRPC
channel and no Python thread behind. TensorFlow and friends write to the standard error of whoever loads them;
here that is the user's terminal, hence the redirection while they load.
"""

import gc
import os
import signal
import sys
import tempfile


def _load() -> None:
    import tfx.dsl.compiler.compiler
    import tfx.orchestration.local.runner_utils
    import tfx.orchestration.pipeline
    import tfx.orchestration.portable.launcher
    import tfx.orchestration.portable.runtime_parameter_utils  # noqa: F401


def _load_quietly() -> None:
    with tempfile.TemporaryFile() as chatter:
        # Ctrl-C is the parent's business: when it ends, so do the fork server and everything forked from it.
        on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        terminal = os.dup(2)
        os.dup2(chatter.fileno(), 2)
        try:
            _load()
        except BaseException:
            chatter.seek(0)
            os.write(terminal, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            signal.signal(signal.SIGINT, on_interrupt)


_load_quietly()
# Freezing moves what was loaded out of the collector's sight: children neither scan nor, by scanning, copy
# it.
gc.collect()
gc.freeze()
