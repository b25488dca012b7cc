"""The slate route's bodies as BentoML's OpenAPI page shows them; `roiflow.serving.app` checks."""

from pydantic import BaseModel, Field


class SlateRequest(BaseModel):
    """Who asks, from where."""

    request_id: str = Field(min_length=1, max_length=128)
    user_id: str = Field(min_length=1, max_length=128)
    placement: str = Field(min_length=1, max_length=128)
    device: str = Field(min_length=1, max_length=128)
    event_time: int | None = Field(None, gt=0, description="Microseconds, UTC; now where absent.")
    known_time: int | None = Field(None, gt=0, description="For a replay; now where absent.")


class SlateAd(BaseModel):
    """An ad of the slate."""

    ad_id: str
    impression_id: str
    position: int = Field(ge=1)
    propensity: float = Field(gt=0, le=1, description="Given the ads above it.")
    bid_micros: int
    p_click: float = Field(ge=0, le=1, description="P(click | shown at position 1).")
    expected_value_micros: float


class Slate(BaseModel):
    """The answer, best position first."""

    request_id: str
    policy_version: str
    degraded: bool = Field(description="Made without the user's online features.")
    ads: list[SlateAd]
