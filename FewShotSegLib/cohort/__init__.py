"""Draw once, apply to the list: one or a few drawn scans and a list of new ones in, every scan segmented, ranked by doubt.

`config` what a run depends on, `manifest` which scans, `places` which files, `stamps` whether inputs changed, `locks` who is at
a case, `supports` the drawn scans and corrections, `nearest` which of them teach a scan, `engine` what segments, `quality` how
good the result probably is, `case` one scan from file to files, `run` all of them, `status`, `review` and `corrections` what
comes after.

    cases = plan(config)                      # every case, of this shard
    worker = open_worker(config)              # loads the model once
    record = run_case(case, worker)           # never raises for a bad scan; writes result and record

An executor (`run.Executor`) decides where `run_case` runs: `run.LocalExecutor` in threads, another one on a cluster.
"""
