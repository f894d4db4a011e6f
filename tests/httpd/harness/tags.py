"""The module's log tags that tests look for; docs/messages.md explains each."""

PLAIN_HTTP = "ABB0004"          # warning
ANSWERED = "ABB0102"            # a page with a reason; its level depends on the reason
REFUSED = "ABB0103"             # info: signed in, but the rules say no
ENDED = "ABB0105"               # info: Bitbucket ended the session
ODD_ROLE = "ABB0107"            # warning, at a later question
SCRUBBED = "ABB0120"           # debug: headers of the request began as ours
RETURN_REFUSED = "ABB0201"      # info
ONCE_MORE = "ABB0202"           # info
LESS_THAN_ASKED = "ABB0204"     # warning, at a sign-in
SIGNED_OUT = "ABB0205"          # info
KEY_NEEDED = "ABB0031"          # emerg: a shared cache without AuthBitbucketSessionKey
CACHE_SILENT = "ABB0033"        # error: the session cache does not answer
BROKEN = "ABB0301"              # warning: Bitbucket does not answer
MENDED = "ABB0302"              # notice: it does again
PAUSED = "ABB0303"              # warning: 429 for several accounts
CHANGED = "ABB0304"             # error: Bitbucket has withdrawn an endpoint
CROWDED = "ABB0305"             # warning: more wait for Bitbucket than may
NOT_RENEWED = "ABB0306"         # warning or error: re-checks that nobody waited for failed
ANOTHER_ACCOUNT = "ABB0307"     # error: a session's tokens became another account's
ANOTHER_WORKSPACE = "ABB0308"    # error: a slug is another workspace's now
SCOPE_MISSING = "ABB0309"      # error: a scope that a rule needs was not granted
