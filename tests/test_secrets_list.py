"""The formats of secrets are those of a public list, detect-secrets: what its detectors find is found here too."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import detect_secrets.plugins
import pytest
from detect_secrets.plugins.base import RegexBasedDetector

from sdo_ray.secrets import CUT, kind_of_secret, redact

HEX, LETTERS = "0a1b2c3d4e5f6789", "aB3dE5gH7jK9mN2p"

EXAMPLES = {
    "ArtifactoryDetector": [f"key={'AKC' + LETTERS * 4}", f"key={'AP6' + LETTERS * 2}"],
    "AWSKeyDetector": [
        *(f"{prefix}ABCDEFGH12345678" for prefix in ("A3TX", "ABIA", "ACCA", "AKIA", "ASIA")),
        f'aws_secret_access_key = "{LETTERS * 2}abcdEF12"',
    ],
    "AzureStorageKeyDetector": [f"AccountKey={LETTERS * 5}abcd56=="],
    "BasicAuthDetector": ["https://ann:hunter2@host/path"],
    "CloudantDetector": [f"cloudant_password = {HEX * 4}", f"https://ann:{HEX * 4}@ann.cloudant.com"],
    "DiscordBotTokenDetector": [f"M{LETTERS}abcdefg.aBcDe1.{LETTERS}abcdefghi12"],
    "GitHubTokenDetector": [f"{prefix}_{LETTERS * 2}abcd" for prefix in ("ghp", "gho", "ghu", "ghs", "ghr")],
    "GitLabTokenDetector": [
        *(f"{prefix}-{LETTERS}abcdefg" for prefix in ("glpat", "gldt", "glft", "glsoat", "glrt", "glcbt", "glcbt-0a_")),
        f"GR1348941{LETTERS}abcdefg",
        f"glimt-{LETTERS}abcdefghi",
        f"glptt-{LETTERS * 2}abcdefgh",
        f"glagent-{LETTERS * 4}",
        f"gloas-{LETTERS * 4}",
    ],
    "IbmCloudIamDetector": [f"ibm_cloud_iam_api_key = {LETTERS * 2}abcdefghij12"],
    "IbmCosHmacDetector": [f"cos_hmac_secret_access_key = {HEX * 3}"],
    "JwtTokenDetector": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"],
    "MailchimpDetector": [f"{HEX * 2}-us12"],
    "NpmDetector": [f"//registry.npmjs.org/:_authToken=npm_{LETTERS * 2}abcd", f"//x.y/:_authToken={HEX}-{HEX}0a1"],
    "OpenAIDetector": [f"sk-{LETTERS}abcdT3BlbkFJ{LETTERS}abcd"],
    "PrivateKeyDetector": [
        *(f"-----BEGIN {kind}PRIVATE KEY-----\nabc" for kind in ("", "DSA ", "EC ", "OPENSSH ", "RSA ")),
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc",
        "PuTTY-User-Key-File-2: ssh-rsa\nabc",
    ],
    "PypiTokenDetector": [f"pypi-AgEIcHlwaS5vcmc{LETTERS * 5}", f"pypi-AgENdGVzdC5weXBpLm9yZw{LETTERS * 5}"],
    "SendGridDetector": [f"SG.{LETTERS}abcdef.{LETTERS * 2}abcdefghij1"],
    "SlackDetector": ["xoxb-123456789012-abc1def2", "https://hooks.slack.com/services/T0AB12/B0CD34/abcDEF123"],
    "SoftlayerDetector": [f"softlayer_api_key = {HEX * 4}", f"https://api.softlayer.com/soap/v3/{HEX * 4}"],
    "SquareOAuthDetector": [f"sq0csp-{LETTERS * 2}abcdefghij1"],
    "StripeDetector": [f"sk_live_{LETTERS}abcdefgh", f"rk_live_{LETTERS}abcdefgh"],
    "TelegramBotTokenDetector": [f"110201543:{LETTERS * 2}abc"],
    "TwilioKeyDetector": [f"AC{HEX * 2}", f"SK{HEX * 2}"],
}
NOT_OF_A_FORMAT = {"IPPublicDetector": "an address is no secret"}


def detectors() -> Iterator[Any]:
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__, "detect_secrets.plugins."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if isinstance(kind, type) and issubclass(kind, RegexBasedDetector) and kind is not RegexBasedDetector:
                yield pytest.param(kind, id=name)


@pytest.mark.parametrize("kind", detectors())
def test_what_the_list_finds_is_found(kind: Any) -> None:
    if kind.__name__ in NOT_OF_A_FORMAT:
        return
    for example in EXAMPLES[kind.__name__]:
        found = [secret for line in example.splitlines() for secret in kind().analyze_string(line)]
        assert found, f"no example of the list's: {example}"
        assert kind_of_secret("anything", example), example
        shown = redact(f"before {example}")
        assert shown.startswith("before ")
        assert CUT in shown
        assert "abc" not in shown
