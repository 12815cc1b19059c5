"""Progress reports: from the training pods into `status.progress`.

A report comes over HTTP (`server`). It is authenticated (`auth`), coalesced with others of its job (`coalescer`) and
written at a bounded rate (`writer`). `ports` has the Protocol of the cluster that this needs. Any replica may take a
report: nothing here depends on leadership.
"""
