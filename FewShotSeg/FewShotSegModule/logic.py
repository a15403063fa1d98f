"""What the module can do, with and without its panel."""

import time

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from FewShotSegModule import corrections, install, plan, results
from FewShotSegModule.parameters import FewShotSegParameters
from FewShotSegModule.run import Run

POLL_SECONDS = 0.02


class FewShotSegLogic(ScriptedLoadableModuleLogic):
    """Segments scans after a drawing, in the background.

    From the panel: `start`, then `advance` with a timer until it returns False. From a script: `process`.

    Args:
        runner: what does the work, see `FewShotSegLib.background.Runner`; None chooses one by the parameters.
    """

    def __init__(self, runner=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self._given, self._runners, self.run = runner, {}, None

    def getParameterNode(self):
        return FewShotSegParameters(super().getParameterNode())

    @property
    def running(self):
        """Whether a job is under way."""
        return self.run is not None and self.run.running

    def whyNotReady(self, parameters):
        """Why a job cannot be started, "" when it can."""
        if self.running:
            return _("A job is running.")
        return plan.why_not_ready(parameters)

    def install(self, requirementsFile):
        """Make sure that all packages are there; see `install.ensure_packages`."""
        if self._given is None:
            install.ensure_packages(requirementsFile)

    def start(self, parameters):
        """Begin the job that the parameters describe.

        Raises:
            ConfigError: it cannot be started now, with the reason.
        """
        reason = self.whyNotReady(parameters)
        if reason:
            from FewShotSegLib.errors import ConfigError

            raise ConfigError(_("The job cannot be started"), "", reason)
        self.run = Run(plan.request_of(parameters), self._runner(parameters.separateProcess))

    def advance(self):
        """Go on with the job for a moment; returns whether there is more to do. Errors as `Run.advance`."""
        return self.running and self.run.advance()

    def cancel(self):
        """Ask the job to end."""
        if self.running:
            self.run.cancel()

    def close(self):
        """End everything at once: the scene or Slicer is closing."""
        if self.run is not None:
            self.run.close()
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()

    def process(self, parameters):
        """Do a whole job and return its result nodes; blocks, for scripts and tests.

        Raises:
            FewShotSegError: as `start` and `advance`.
            RuntimeError: a scan could not be segmented.
        """
        self.start(parameters)
        while self.advance():
            slicer.app.processEvents()
            time.sleep(POLL_SECONDS)
        if self.run.state.problems:
            raise RuntimeError("\n".join(self.run.state.problems))
        return self.run.state.nodes

    def useAsSupport(self, parameters, result):
        """Make a corrected result the drawing of the next job: of its own scan, where slices were corrected, and of the others.

        Returns:
            how many slices of it were corrected.

        Raises:
            ConfigError: nothing was corrected and there is no other scan, so that a new job would give the same again.
        """
        scan = results.query_of(result)
        others = [node for node in plan.queries(parameters) if node is not scan and node is not parameters.supportVolume]
        corrected = corrections.corrected_count(result, scan)
        if not corrected and not others:
            from FewShotSegLib.errors import ConfigError

            raise ConfigError(
                _("{name} was not changed since it was made").format(name=result.GetName()),
                _("at least one corrected slice, or another scan to segment"),
                _("press Correct, change the result on a slice, and try again"),
            )
        parameters.excludedSegments = []
        parameters.supportVolume, parameters.supportSegmentation = scan, result
        parameters.sameScan, parameters.queryVolumes = corrected > 0, others
        return corrected

    def _runner(self, separate):
        if self._given is not None:
            return self._given
        if separate not in self._runners:
            from FewShotSegLib.background import ProcessRunner, ThreadRunner

            self._runners[separate] = ProcessRunner() if separate else ThreadRunner()
        return self._runners[separate]
