import pytest
import torch

from firmground.models.language import LanguageEncoder
from firmground.models.tiny import clean_bert
from firmground.models.tiny_tokenizers import words


@pytest.fixture(scope="session")
def encoder() -> LanguageEncoder:
    return clean_bert(0)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """120 word salads of common words."""
    generator = torch.Generator().manual_seed(1)
    common = [word for word in words() if len(word) > 3][:60]

    def text() -> str:
        length = int(torch.randint(4, 12, (), generator=generator))
        return " ".join(common[i] for i in torch.randint(len(common), (length,), generator=generator).tolist())

    return [text() for _ in range(120)]
