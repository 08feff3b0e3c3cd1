"""Where numbers come from: the command, the code, the hardware and the time of a measurement."""

from __future__ import annotations

from pages.stored import Results


def certificate_line(certificate: Results) -> str:
    """The command and the circumstances of a measurement."""
    return f"`{certificate['command']}`, {about_run(certificate)}"


def about_run(certificate: Results) -> str:
    """Code, seed, hardware, date and versions of a measurement."""
    hardware, versions = certificate["hardware"], certificate["versions"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['cores']} cores"
    seed = "" if certificate["seed"] is None else f"seed {certificate['seed']}, "
    return (
        f"commit {short(certificate['commit'])}, {seed}{devices}, {certificate['date'][:10]}, "
        f"torch {versions['torch']}, Python {versions['python']}"
    )


def short(commit: str) -> str:
    """Twelve digits of a commit, and whether files differed from it."""
    digits, dirty, _ = commit.partition("-dirty")
    return digits[:12] + dirty


def of_benchmark(document: Results) -> str:
    """The origin of a benchmark's numbers, and the commit of its code if the certificate's differs."""
    code = document["results"].get("code")
    known = f"; its code is that of commit {short(code)}" if code else ""
    return certificate_line(document["certificate"]) + known


def of_experiment(results: Results) -> str:
    """The commit of the code if it differs from the certificate's, how long it ran, how the numbers were collected."""
    code = results.get("code")
    known = [f"Its code is that of commit {code[:7]}."] if code else []
    known += duration(results.get("sessions", []))
    return " ".join(known + ([f"Collected {results['collected']}."] if "collected" in results else []))


def duration(sessions: list[Results]) -> list[str]:
    """Wall and GPU minutes of the script, over all its sessions; none where they were not recorded."""
    if not sessions:
        return []
    wall = sum(session["wall_minutes"] for session in sessions)
    gpus = sum(
        session.get("gpu_minutes", session["wall_minutes"] * len(session["gpus"])) for session in sessions
    )
    at_once = max(session["at_once"] for session in sessions)
    said = [f"{wall:.1f} minutes of wall time, {gpus:.1f} GPU minutes, up to {at_once} commands at once."]
    if any("gpu_minutes" in session for session in sessions):
        said.append(
            "Commands of other sets shared the GPUs; a second of a command counts 1 / n where n ran on its GPU."
        )
    if beside := sorted({name for session in sessions for name in session.get("beside", [])}):
        said.append(f"The minutes and the commands include those of {', '.join(beside)}, on the same GPU.")
    if stood := sum(session.get("stood_seconds", 0) for session in sessions):
        said.append(
            f"All commands were paused for {stood:.0f} seconds, while other measurements had the GPU."
        )
    return said
