"""Who judges the rationales of a comparison: the section `judge` of its configuration."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.teacher_settings import plain_http_url
from tasks.teacher.settings import Api, TeacherSettings, name_of_a_block


class JudgeSettings(BaseModel):
    """A model that is asked which of two rationales is better; reached as a teacher is."""

    # Somebody may put a key where none belongs, so no error repeats a value.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    model: str = Field(
        min_length=1,
        description="The judge: a folder or hub id that vLLM serves, or with `url` the name that the endpoint serves.",
    )
    url: str | None = Field(
        default=None,
        description="An OpenAI-compatible endpoint; its key goes into QCRD_TEACHER_API_KEY, never into the URL.",
    )
    key_secret: str | None = Field(
        default=None, max_length=64, description="Name of the Prefect Secret block that holds the endpoint's key."
    )
    questions: int = Field(
        default=200, ge=1, description="Questions for each variant; every one is asked twice, in both orders."
    )
    api: Api = Field(default="auto", description="As of a teacher: `chat`, `completions` or `auto`.")
    max_tokens: int = Field(default=512, ge=1, description="Longest reply, in tokens.")
    in_flight: int = Field(default=64, ge=1, le=4096, description="Requests under way at once.")
    timeout_s: float = Field(default=600.0, gt=0, description="Seconds to wait for one reply.")
    retries: int = Field(default=6, ge=0, description="Times a request is tried again.")

    @field_validator("url")
    @classmethod
    def _plain_http_url(cls, url: str | None) -> str | None:
        return None if url is None else plain_http_url(url)

    @field_validator("key_secret")
    @classmethod
    def _name_of_a_block(cls, name: str | None) -> str | None:
        return None if name is None else name_of_a_block(name)

    @model_validator(mode="after")
    def _key_has_an_endpoint(self) -> Self:
        if self.key_secret is not None and self.url is None:
            raise ValueError("`key_secret` belongs to `url`: no other judge asks for a key")
        return self

    def as_teacher(self) -> TeacherSettings:
        """The settings with which it is asked, like a teacher that is sampled once at temperature 0."""
        return TeacherSettings(
            model=self.model, url=self.url, key_secret=self.key_secret, n=1, temperature=0.0,
            max_tokens=self.max_tokens, api=self.api, in_flight=self.in_flight, timeout_s=self.timeout_s,
            retries=self.retries,
        )  # fmt: skip
