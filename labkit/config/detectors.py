"""Detectors: what detect-secrets knows of the keys of some twenty services, in addition to ``credentials``.

For what leaves this machine: importing it costs a fifth of a second.
"""

import functools
import re

from labkit.config.credentials import Span, end_of, spans, visible

_IMAGE = re.compile(r"[A-Za-z0-9+/=\n]{2000,}")


@functools.cache
def _plugins() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """The forms that detect-secrets knows, of services whose keys have one.

    Left out: entropy (images, run ids and hashes are high in it), keywords (``spans`` finds them without quotes, and
    more than one a line), public addresses (no secret), Artifactory's (any word in capitals that begins with AP),
    IBM's (any value of 44 letters after ``key``), and npm's, which is slow (its ``_authToken=`` is a name to
    ``spans``). Nothing is verified, so no service is asked.
    """
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        openai,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )  # fmt: skip

    kinds = (
        aws.AWSKeyDetector, azure_storage_key.AzureStorageKeyDetector, basic_auth.BasicAuthDetector,
        discord.DiscordBotTokenDetector, github_token.GitHubTokenDetector, gitlab_token.GitLabTokenDetector,
        jwt.JwtTokenDetector, mailchimp.MailchimpDetector, openai.OpenAIDetector,
        pypi_token.PypiTokenDetector, sendgrid.SendGridDetector, slack.SlackDetector, square_oauth.SquareOAuthDetector,
        stripe.StripeDetector, telegram_token.TelegramBotTokenDetector, twilio.TwilioKeyDetector,
    )  # fmt: skip
    return tuple((kind.secret_type, pattern) for kind in kinds for pattern in kind().denylist)


_REST = re.compile(r"(?:[\w=-]|\.(?=\w))*")
_LONG = 16
"""Characters from which a group of a plugin's pattern is the credential, and not its prefix."""


def detected(text: str) -> list[Span]:
    """What detect-secrets and ``spans`` find in ``text``."""
    if _IMAGE.fullmatch(text):
        return []
    found = spans(text)
    for kind, pattern in _plugins():
        for match in pattern.finditer(text):
            inner = [match.span(n) for n in range(1, pattern.groups + 1) if len(match[n] or "") >= _LONG]
            start, end = inner[-1] if inner else match.span()
            # some patterns end where a token continues
            found.append(Span(start, end_of(_REST, text, end), kind))
    return visible(text, found)
