"""Progress reports: from the pods that train into `status.progress`.

A report is authenticated (`auth`), coalesced with others of its job (`coalescer`) and written at a bounded rate
(`writer`); `server` is the HTTP in front. What this needs of the cluster stands in `ports`. Any replica may take a
report: nothing here depends on leadership.
"""
