"""Whether a run starts anew, goes on where another stopped, or has nothing left to do."""

from collections.abc import Callable
from dataclasses import replace

from stkd_screen.errors import OutputError
from stkd_screen.parts.manifest import Manifest, differences
from stkd_screen.parts.outputs import OutputFile, OutputFolder


def begin(
    output: OutputFile | OutputFolder, plan: Manifest, *, overwrite: bool = False, restart: bool = False
) -> Manifest:
    """What is done of an output already.

    Args:
        output: locked by this run.
        plan: the manifest of this run, without parts.
        overwrite: replace a finished output.
        restart: throw away an unfinished one.

    Returns:
        `plan` for a new run, a manifest with parts where the run goes on after them, a complete one where
        nothing is left to do.

    Raises:
        OutputError: what is there was made from another input, by another model or with other options, is
            no output of this program, cannot be read, or has lost parts.
    """
    finished = _readable(output.finished, overwrite, "--overwrite")
    unfinished = None if restart else _readable(output.unfinished, overwrite, "--restart")
    if finished and unfinished and _is_same(finished, unfinished):
        output.discard()  # killed after its last step, before it could tidy up
        unfinished, overwrite = None, False
    if not overwrite:
        if finished:
            if different := differences(finished, plan):
                raise OutputError(
                    f"{output.path} exists already, made otherwise ({'; '.join(different)}); "
                    "give another -o, or --overwrite to replace it"
                )
            if not plan.can_be_read_again:
                raise OutputError(
                    f"{output.path} exists already, and whether standard input or a pipe is the same again "
                    "cannot be known; give another -o, or --overwrite to replace it"
                )
            return finished
        if output.path.is_file():
            raise OutputError(f"{output.path} exists already; give another -o, or --overwrite to replace it")
    if unfinished is None or not unfinished.parts:
        output.begin(plan)
        return plan
    _check_can_go_on(output, unfinished, plan)
    manifest = replace(unfinished, inputs=plan.inputs, writer=plan.writer)
    output.save(manifest)
    return manifest


def _readable(manifest: Callable[[], Manifest | None], thrown_away: bool, option: str) -> Manifest | None:
    """A manifest; none where it cannot be read and is thrown away anyhow, as `option` does."""
    try:
        return manifest()
    except OutputError as fault:
        if thrown_away:
            return None
        raise OutputError(f"{fault}, give another -o, or {option} to begin anew") from fault.__cause__


def _is_same(finished: Manifest, unfinished: Manifest) -> bool:
    return finished.parts == unfinished.parts and not differences(finished, unfinished)


def _check_can_go_on(output: OutputFile | OutputFolder, unfinished: Manifest, plan: Manifest) -> None:
    done = f"{output.work} holds the first {unfinished.rows:,} rows of an unfinished run"
    if different := differences(unfinished, plan):
        raise OutputError(
            f"{done}, which this command cannot continue: {'; '.join(different)}. Go back to what it was to "
            "continue it, give another -o, or --restart to throw it away"
        )
    if not plan.can_be_read_again:
        raise OutputError(
            f"{done} from standard input or a pipe, which cannot be read again from its beginning; "
            "give --restart to throw it away, or another -o"
        )
    if missing := output.missing(unfinished):
        raise OutputError(f"{done}, but {missing}; give --restart to begin anew, or another -o")
