"""What is on disk: run directories, checkpoints, result folders and fingerprints.

- A file or folder is complete under its name or not there: everything is written by `weightdecay.core.files.atomic`.
- The head of `run_directory`, `checkpoints` and `result_folder` describes each format. A later version reads
  what an earlier one wrote.
- Several processes share a run directory without locks of the system: `processes`, `leases` and `checkpoint_index`. A
  member has the same bits whoever trains it, so that a lane that is trained twice does no harm.
- What is read may be damaged or malicious: checksums, bounded memory, no pickle, and errors that name the file.
- `fingerprints` decides whether two calls are the same run. What a number of the run depends on belongs there.
"""
