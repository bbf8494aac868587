"""The prompts of the attacks of an evaluation: searched for once, case by case, and kept in its folder."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from tqdm import tqdm

from pipeline.evaluation.attacks.ring_a_bell import Budget, RingABell
from pipeline.evaluation.erasure.config import EvaluationConfig
from pipeline.evaluation.erasure.prompts import ATTACK, EMBEDDINGS, Question, Task, attacked
from pipeline.evaluation.erasure.store import Folder
from pipeline.models.load import Model
from pipeline.prompts.seeds import hashed
from pipeline.terminal import printable


class AttackSearch:
    """Asks the attacks' questions of *tasks*; *load_model* is called where a case is not in *folder* yet."""

    def __init__(
        self, config: EvaluationConfig, folder: Folder, tasks: Mapping[str, Task], load_model: Callable[[], Model]
    ):
        self.config, self.folder, self.tasks, self.load_model = config, folder, tasks, load_model

    def check(self, model: Model) -> None:
        """Raise ``ConfigError`` where the search cannot work on *model*."""
        RingABell.check(model, self._budget())

    def embedded(self, task: str) -> list[Question]:
        """Return the questions of the attack by embeddings: plain prompts, those that the search hides."""
        found = []
        for i in range(self.config.attack.embeddings):
            concept, prompt, _ = attacked(self.tasks[task], i)
            seed = hashed("picture", task, EMBEDDINGS, i, self.config.seed)
            found.append(Question(EMBEDDINGS, prompt, seed, concept.name))
        return found

    def searched(self, task: str) -> list[Question]:
        """Search the attack's prompts for *task*, as far as they are not in the folder; return their questions."""
        budget = self._budget()
        model = None
        found = []
        for i in tqdm(range(self.config.attack.cases), desc=printable(f"{task}: attack"), unit="case"):
            name = f"attack/{task}/{i:04d}.json"
            concept, prompt, pairs = attacked(self.tasks[task], i)
            case = self.folder.read_json(name)
            if case is None:
                model = model or self.load_model()
                attack = RingABell(model, concept, pairs, budget).search(prompt, hashed(task, i, self.config.seed))
                case = {"concept": concept.name, "hidden": prompt} | asdict(attack)
                self.folder.write_json(name, case)
            seed = hashed("picture", task, ATTACK, i, self.config.seed)
            found.append(Question(ATTACK, case["prompt"], seed, concept.name))
        return found

    def searched_before(self, task: str) -> list[Question] | None:
        """Return the attack's questions, where all its cases are in the folder."""
        cases = range(self.config.attack.cases)
        known = all((self.folder.root / f"attack/{task}/{i:04d}.json").exists() for i in cases)
        return self.searched(task) if known else None

    def _budget(self) -> Budget:
        attack = self.config.attack
        return Budget(attack.tokens, attack.strength, attack.population, attack.generations)
