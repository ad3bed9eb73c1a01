"""The release pipeline's rules: policies as a table, figures, the report; and the folder of releases."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.errors import AutoSyncError, ConfigError, LockTimeout
from autosync.release_policy import (
    HISTORY,
    JOBS,
    Action,
    Build,
    Job,
    JobFailed,
    Metrics,
    Result,
    State,
    Tests,
    changed,
    due,
    measure,
    missing,
    next_action,
    read_junit,
    render,
    version_of,
)
from blocks.release.folder import KEEP, Releases, pack, sha256, unpack
from flows.release_pipeline.programs import run_program, words

POLICY_TABLE: list[tuple[Job, bool, int, Action]] = [
    ("build", True, 1, "go_on"),
    ("build", False, 1, "abort"),
    ("unit_test", True, 1, "go_on"),
    ("unit_test", False, 1, "retry"),
    ("unit_test", True, 2, "go_on"),
    ("unit_test", False, 2, "abort"),
    ("integration_test", True, 1, "go_on"),
    ("integration_test", False, 1, "notify"),
    ("deploy", True, 1, "go_on"),
    ("deploy", False, 1, "rollback"),
    ("post_deploy_report", True, 1, "commit"),
    ("post_deploy_report", False, 1, "abort"),
]


@pytest.mark.parametrize(("job", "passed", "tries", "action"), POLICY_TABLE)
def test_every_end_of_a_job_has_its_next_step(job: Job, passed: bool, tries: int, action: Action) -> None:
    """The policies, line by line."""
    assert next_action(job, passed, tries) == action


def test_a_job_is_due_when_all_before_it_are_done_and_the_report_always() -> None:
    """One failure holds back all that follow, but not the report."""
    for failed, name in enumerate(JOBS):
        states: dict[Job, State] = {**dict.fromkeys(JOBS[:failed], "done"), name: "failed"}
        later = JOBS[failed + 1 :]
        assert [job for job in later if due(job, states)] == [job for job in later if job == "post_deploy_report"]
        assert all(due(job, states) for job in JOBS[: failed + 1])


@pytest.mark.parametrize(
    ("said", "state"), [("failure", "failed"), ("cancelled", "failed"), ("skipped", "skipped"), ("", "skipped")]
)
def test_a_job_without_a_record_is_what_github_says_about_it(said: str, state: State) -> None:
    """A job that died is failed, one that never started is skipped."""
    assert missing("deploy", said).state == state


def test_versions_name_the_commit_and_uncommitted_changes() -> None:
    """X.Y.Z+COMMIT is tagged; a build of uncommitted changes has a version of its own and no tag."""
    clean, dirty = (
        version_of("1.2.3", "a" * 40, "f" * 64, clean=True),
        version_of("1.2.3", "a" * 40, "f" * 64, clean=False),
    )
    assert (clean, dirty) == ("1.2.3+aaaaaaaaaaaa", "1.2.3+aaaaaaaaaaaa.dirty.ffffffff")
    made = Build(version=clean, commit="a" * 40, wheel="w", wheel_sha256="f", artifact_sha256="f")
    assert made.tag == "v1.2.3+aaaaaaaaaaaa"
    assert msgspec.structs.replace(made, version=dirty, clean=False).tag == ""


def test_junit_results_are_counted_over_all_suites() -> None:
    """Failures and errors both count as failed; one suite without a frame is read, too."""
    suite = '<testsuite tests="{}" failures="1" errors="2" skipped="1" time="0.25"/>'
    both = f"<testsuites>{suite.format(7)}{suite.format(5)}</testsuites>".encode()
    assert read_junit(both) == Tests(12, 6, 2, 0.5)
    assert read_junit(suite.format(7).encode()).passed == 3
    assert read_junit(b"<testsuites/>") == Tests()


@pytest.mark.parametrize(
    "text", [b"", b"<a", b'<testsuite tests="many"/>', b'<!DOCTYPE a [<!ENTITY b "c">]><testsuite name="&b;"/>']
)
def test_results_that_are_no_junit_are_refused(text: bytes) -> None:
    """Not XML, not a number, or XML that declares entities."""
    with pytest.raises(JobFailed):
        read_junit(text)


def results(deploy: State = "done", commit: str = "a", **more: object) -> list[Result]:
    """The results of a run up to its deploy."""
    passed = [Result(job=job, state="done", tries=1, seconds=2.0, commit=commit, version=commit) for job in JOBS[:3]]
    last = Result(job="deploy", state=deploy, tries=int(deploy != "skipped"), seconds=1.0)
    return [*passed, msgspec.structs.replace(last, **more)]


def test_key_figures_follow_the_history() -> None:
    """The change failure rate is of deployments only; a run without one counts as a run that passed."""
    metrics: Metrics | None = None
    runs = [results(), results("failed", "b", rolled_back=True), results("skipped", "c"), results("failed", "d")]
    for number, run in enumerate(runs):
        metrics = measure(run, metrics, run=str(number), time=number)
    assert metrics
    assert [entry.outcome for entry in metrics.history] == ["released", "rolled back", "checked", "failed"]
    assert (metrics.kpi.runs, metrics.kpi.deployments, metrics.kpi.success_rate) == (4, 3, 0.5)
    assert metrics.kpi.change_failure_rate == pytest.approx(2 / 3)
    assert metrics.kpi.seconds_median == 7.0


def test_without_a_deployment_there_is_no_change_failure_rate() -> None:
    """Nothing is divided by zero, and the report says why there is no figure."""
    metrics = measure(results("skipped"), None, run="1", time=0)
    assert metrics.kpi.change_failure_rate is None
    assert "no deployment yet" in render(metrics, "now")


def test_a_run_that_repeats_the_last_one_is_nothing_new() -> None:
    """Other times and another run number change neither the history nor the decision to commit."""
    first = measure(results(), None, run="1", time=1.0)
    slower = [msgspec.structs.replace(result, seconds=9.0, started=5.0) for result in results()]
    again = measure(slower, first, run="2", time=99.0)
    assert changed(first, None) and not changed(again, first)
    assert again.history == first.history
    assert changed(measure(results(commit="b"), first, run="3", time=100.0), first)
    assert changed(measure(results("failed"), first, run="3", time=100.0), first)


def test_the_history_is_bounded() -> None:
    """Only the newest runs are kept."""
    metrics: Metrics | None = None
    for number in range(HISTORY + 5):
        metrics = measure(results(commit=str(number)), metrics, run=str(number), time=number)
    assert metrics
    assert (len(metrics.history), metrics.history[0].run) == (HISTORY, "5")


def test_a_message_cannot_break_the_reports_table() -> None:
    """Lines and bars in what a job said stay in their cell."""
    metrics = measure(results("failed", text="a | b\nc"), None, run="1", time=0)
    assert "| a \\| b c |" in render(metrics, "now")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def wheel(folder: Path, text: str) -> Path:
    """A wheel that holds one module: the same bytes whenever it is made."""
    path = folder / f"thing-{text}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("thing.py"), f"TEXT = {text!r}\n")
    return path


def put(releases: Releases, name: str, *, good: bool) -> None:
    """A deploy as the flow makes it."""
    with releases.lock():
        releases.install(wheel(releases.folder, name), name)
        releases.switch(name)
        if good:
            releases.confirm(name)
        else:
            releases.back()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["good", "bad", "killed", "asked"])), max_size=12))
def test_current_is_always_the_newest_release_that_was_proven(steps: list[tuple[int, str]]) -> None:
    """After any series of deploys, failed or killed ones and rollbacks, the next rollback leads to a proven release."""
    with TemporaryDirectory() as name:
        releases, proven = Releases(Path(name)), list[str]()
        for number, kind in steps:
            version = f"r{number}"
            if kind == "asked":
                gone, _ = releases.back(asked=True)
                proven = [other for other in proven if other != gone]
            else:
                proven = [other for other in proven if other != version]
                with releases.lock():
                    releases.install(wheel(releases.folder, version), version)
                    releases.switch(version)
                if kind == "good":
                    releases.confirm(version)
                    proven = [*proven, version][-KEEP:]
                elif kind == "bad":
                    releases.back()
            if kind != "killed":
                assert releases.name == (proven[-1] if proven else "")
        releases.back()
        assert releases.name == (proven[-1] if proven else "")
        assert releases.verified == proven
        assert not releases.name or (releases.current / "thing.py").exists()


def test_a_failed_release_leaves_the_one_before_and_no_trace(folder: Path) -> None:
    """The bad release's folder is gone, so that the same version can be tried again."""
    releases = Releases(folder)
    put(releases, "a", good=True)
    put(releases, "b", good=False)
    assert releases.name == "a" and not (folder / "releases" / "b").exists()
    put(releases, "b", good=True)
    assert releases.name == "b"


def test_the_first_release_fails_and_nothing_is_deployed(folder: Path) -> None:
    """There is nothing to go back to, so there is no `current`."""
    releases = Releases(folder)
    put(releases, "a", good=False)
    assert releases.name == "" and not releases.current.is_symlink()


def test_a_proven_release_is_rolled_back_only_when_asked(folder: Path) -> None:
    """A deploy that failed before it switched anything leaves the release in use alone."""
    releases = Releases(folder)
    put(releases, "a", good=True)
    put(releases, "b", good=True)
    assert releases.back() == ("", "b")
    assert releases.back(asked=True) == ("b", "a")


def test_a_release_never_changes_its_content(folder: Path) -> None:
    """Another wheel under the same version is refused."""
    releases = Releases(folder)
    put(releases, "a", good=True)
    with pytest.raises(ConfigError, match="other content"):
        releases.install(wheel(folder, "other"), "a")
    assert (releases.current / "thing.py").read_text() == "TEXT = 'a'\n"


def test_only_one_deploy_works_in_a_folder_at_a_time(folder: Path) -> None:
    """The second one is refused at once."""
    with Releases(folder).lock(), pytest.raises(LockTimeout), Releases(folder).lock():
        pass


def test_an_artifact_that_was_altered_is_refused(folder: Path) -> None:
    """The same files give the same archive; another byte anywhere is found."""
    path, artifact = wheel(folder, "a"), folder / "artifact.zip"
    pack(artifact, [path])
    digest = sha256(artifact)
    pack(artifact, [path])
    assert sha256(artifact) == digest
    made = Build(version="1", commit="c", wheel=path.name, wheel_sha256=sha256(path), artifact_sha256=digest)
    assert unpack(artifact, made, folder / "out").read_bytes() == path.read_bytes()
    for field in ("artifact_sha256", "wheel_sha256"):
        with pytest.raises(AutoSyncError, match="not what build made"):
            unpack(artifact, msgspec.structs.replace(made, **{field: "0" * 64}), folder / "out")


def test_a_program_that_takes_too_long_is_ended_with_what_it_started(folder: Path) -> None:
    """The time limit holds for children that keep the output open, too."""
    with pytest.raises(JobFailed, match="took longer"):
        run_program(words("sh -c 'sleep 60 & sleep 60'"), folder / "log", cwd=folder, minutes=0.005)


def test_a_program_sees_no_slack_address_and_its_log_none_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The secret isn't handed down, and where a program knows it from elsewhere its log has *** instead."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "http://localhost/secret-address")
    text = "import os; print(os.environ.get('SLACK_WEBHOOK_URL'), 'http://localhost/secret' + '-address')"
    run_program([sys.executable, "-c", text], folder / "log", cwd=folder, minutes=1)
    assert (folder / "log").read_text() == "None ***\n"
    assert "http://localhost/secret-address" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"), [("false", "status 1"), ("no-such-program", "can't be started"), ("", "an empty command")]
)
def test_a_program_that_fails_says_how(folder: Path, command: str, said: str) -> None:
    """A status, a missing program, no program at all."""
    with pytest.raises(JobFailed, match=said):
        run_program(words(command), folder / "log", cwd=folder, minutes=1)


def test_a_command_with_an_open_quote_is_refused() -> None:
    """It is the user's to correct."""
    with pytest.raises(ConfigError, match="can't be read"):
        words("sh -c 'x")
