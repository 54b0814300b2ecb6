"""Parts of a set of questions, by a hash of their ids: for work that several machines share."""

from pydantic import BaseModel, ConfigDict


class Shard(BaseModel):
    """One of several parts of a set of questions, each about as large; which one a question is in follows from its id.

    Attributes:
        number: from 0 to `of` - 1.
        of: how many there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number + 1} of {self.of}"

    @classmethod
    def all(cls, of: int) -> list["Shard"]:
        """All of so many."""
        return [cls(number=number, of=of) for number in range(of)]

    def halves(self) -> tuple["Shard", "Shard"]:
        """The two parts that it consists of: a number modulo `of` leaves two remainders modulo twice as many."""
        return Shard(number=self.number, of=2 * self.of), Shard(number=self.number + self.of, of=2 * self.of)

    @property
    def condition(self) -> str:
        """SQL over the column `example_id`: whether a question is in it."""
        return f"{bucket(17)} % {self.of} = {self.number}"


def bucket(first: int) -> str:
    """SQL: 32 bits of an example's hash as a number, from hexadecimal digit `first` (counted from 1) on."""
    return f"('0x' || substr(md5(example_id), {first}, 8))::UBIGINT"
