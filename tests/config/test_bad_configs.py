"""Every kind of bad config gives one clear line: where, what, what was expected, and the nearest valid name."""

import subprocess
import sys

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError

SEEN = "detectors: [{detector: diorama}]"

# What replaces what in the sound config, and what the message must say after the name of the file.
SPOILT = {
    "unknown section": ("model: {", "modle: {", "modle: unknown key (did you mean 'model'?)"),
    "unknown key": (
        "detectors: [",
        "detecters: [",
        "audit.detecters: unknown key (did you mean 'detectors'?); expected one of detectors, combine",
    ),
    "unknown key in a list item": (
        "aliases: [k",
        "alises: [k",
        "erasure.concepts[0].alises: unknown key (did you mean 'aliases'?); expected one of name, aliases, anchor",
    ),
    "key that is missing": ("path: out/x", "image_format: png", "output.path: is missing; expected text"),
    "key missing in a list item": ("{name: knife}", "{anchor: spoon}", "erasure.concepts[1].name: is missing"),
    "option key that is no text": ("{method: uce}", "{method: uce, options: {a: {1: 2}}}", "options.a: has the key 1"),
    "option that is no number": ("{method: uce}", "{method: uce, options: {a: [.nan]}}", "options.a[0]: is nan"),
    "section that is missing": ("model: {path: diorama}\n", "", "model.path: is missing"),
    "section that is no mapping": ("{path: diorama}", "diorama", "model: is 'diorama'; expected a mapping with path"),
    "section that is null": ("output: {path: out/x}", "output:", "output: is null; expected a mapping"),
    "list that is no list": (
        "[kitten, tabby]",
        "kitten",
        "erasure.concepts[0].aliases: is 'kitten'; expected a list of",
    ),
    "YAML's no in a list of texts": (
        "[kitten, tabby]",
        "[no]",
        "erasure.concepts[0].aliases[0]: is false; expected text (put it in quotes: 'no')",
    ),
    "mapping that is no mapping": ("values: {animal: [cat, dog], place: [indoors, outside]}", "values: 3", "a mapping"),
    "key that is a number": ("{animal: [", "{3: [one], animal: [", "prompts.values.3: is no field of the template"),
    "key that is no text": (
        "{animal: [cat, dog],",
        "{no: [cat, dog],",
        "prompts.values: has the key false; expected keys that are text (put it in quotes: 'no')",
    ),
    "word for a number": ("audit:", "seed: many\naudit:", "seed: is 'many'; expected a whole number"),
    "fraction for a whole number": ("audit:", "seed: 1.5\naudit:", "seed: is 1.5; expected a whole number"),
    "infinity": ("audit:", "generation: {guidance: .inf}\naudit:", "generation.guidance: is inf; expected a finite"),
    "true for a number": ("audit:", "generation: {steps: true}\naudit:", "generation.steps: is true; expected a whole"),
    "word for a truth": ("values:", "shuffle: maybe, values:", "prompts.shuffle: is 'maybe'; expected true or false"),
    "unknown choice": (
        "path: out/x",
        "path: out/x, image_format: jpeg",
        "output.image_format: is 'jpeg' (did you mean 'jpg'?); expected one of jpg, png, webp, webp-lossless",
    ),
    "unknown policy": ("diorama}]", "diorama}], policy: quarantene", "(did you mean 'quarantine'?)"),
    "empty model path": ("path: diorama", 'path: ""', "model.path: is empty; expected 'diorama', a hub id"),
    "unknown scheduler": (
        "path: diorama",
        "path: diorama, scheduler: DDIMSheduler",
        "model.scheduler: unknown 'DDIMSheduler' (did you mean 'DDIMScheduler'?)",
    ),
    "scheduler options alone": ("path: diorama", "path: diorama, scheduler_options: {a: 1}", "without model.scheduler"),
    "concept without a word": ("name: knife", 'name: "..."', "erasure.concepts[1].name: is '...'; expected a word"),
    "alias without a word": ("tabby]", '""]', "erasure.concepts[0].aliases[1]: is ''; expected a word"),
    "concept with a comma": ("name: knife", 'name: "knife, sword"', "expected one word or phrase without commas"),
    "concept listed twice": ("name: knife", "name: cat", "erasure.concepts[1].name: 'cat' is listed already"),
    "concept that is another's alias": ("name: knife", "name: Kitten", "'Kitten' is already a word for 'cat'"),
    "alias that is another concept": ("{name: knife}", "{name: knife, aliases: [cat]}", "already a word for 'cat'"),
    "concept that is another's plural": (
        "name: knife",
        "name: cats",
        "erasure.concepts[1].name: 'cats' is already a word for 'cat', as 'cat' is to whoever reads a prompt; expected",
    ),
    "concept whose plural is another's": (
        "name: knife",
        "name: tabbie",
        "'tabbie' is already a word for 'cat', as 'tabby'",
    ),
    "concept that is another's with a hyphen": (
        "{name: knife}",
        "{name: toy-car}\n    - {name: car, aliases: [TOY car]}",
        "aliases[0]: 'TOY car' is already a word for 'toy-car'",
    ),
    "alias given twice": ("tabby]", "kitten]", "erasure.concepts[0].aliases[1]: 'kitten' is already a word for this"),
    "anchor equal to its concept": (
        "anchor: dog",
        "anchor: Cat",
        "erasure.concepts[0].anchor: 'Cat' is the concept itself",
    ),
    "anchor equal to an alias": ("anchor: dog", "anchor: tabby", "'tabby' is the concept itself"),
    "anchor that is erased": ("anchor: dog", "anchor: knife", "is a word for the erased concept 'knife'"),
    "anchor that contains its concept": ("anchor: dog", "anchor: a toy cat", "'a toy cat' contains 'cat'"),
    "anchor that is the plural of its concept": ("anchor: dog", "anchor: Cats", "anchor: 'Cats' is the concept itself"),
    "anchor that is an erased plural": ("anchor: dog", "anchor: knives", "'knives' is a word for the erased concept"),
    "anchor that contains another concept": (
        "anchor: dog",
        "anchor: a dog with a knife",
        "'a dog with a knife' contains 'knife', a word for 'knife', which is to be erased",
    ),
    "anchor that contains another concept's plural": (
        "{name: knife}",
        "{name: knife, anchor: toy kittens}",
        "'kittens'",
    ),
    "preserve holds a plural of the concept": ("[tiger, lion", "[cats, lion", "'cats' is a word for this concept"),
    "preserve contains an erased plural": ("[tiger, lion", "[table knives, lion", "contains 'knives', a word for the"),
    "preserve contains the concept": ("[tiger, lion", "[cat, lion", "preserve[0]: 'cat' is a word for this concept"),
    "preserve holds a word of the concept": ("[tiger, lion", "[toy cat, lion", "'toy cat' contains 'cat', a word for"),
    "neighbour listed twice": ("[tiger, lion", "[tiger, Tiger", "preserve[1]: 'Tiger' is listed already"),
    "preserve contains another": ("[tiger, lion", "[tiger, knife", "preserve[1]: 'knife' is a word for the erased"),
    "preserve holds what could be an exception": (
        "[tiger, lion",
        "[toy cat, lion",
        "expected other words (or, where it means something else, list it under keep here)",
    ),
    "preserve contains another's word": (
        "[tiger, lion",
        "[butter knife, lion",
        "where it means something else, list it under keep of 'knife')",
    ),
    "exception without a word of the concept": (
        "anchor: dog",
        "keep: [hot dog], anchor: dog",
        "concepts[0].keep[0]: 'hot dog' has no word of 'cat' in it; expected a phrase that has one and means something "
        "else (what merely is to stay unharmed stands in preserve)",
    ),
    "exception that is a word of the concept": (
        "anchor: dog",
        "keep: [Kittens], anchor: dog",
        "keep[0]: 'Kittens' is a word for this concept; expected a phrase that means something else",
    ),
    "exception listed twice": (
        "anchor: dog",
        "keep: [cat burglar, Cat-Burglar], anchor: dog",
        "keep[1]: 'Cat-Burglar' is listed already; expected every exception once",
    ),
    "exceptions that are no list": (
        "anchor: dog",
        "keep: cat burglar, anchor: dog",
        "keep: is 'cat burglar'; expected",
    ),
    "a proved word that is listed": (
        "anchor: dog",
        "implied: [Kittens], anchor: dog",
        "implied[0]: 'Kittens' is listed among the words of a concept; expected one that no list has",
    ),
    "a proven word listed twice": (
        "anchor: dog",
        "proven: [moggy, Moggies], anchor: dog",
        "proven[1]: 'Moggies' is listed already; expected every word once",
    ),
    "a word that is proven and ignored": (
        "anchor: dog",
        "proven: [moggy], ignore: [MOGGY], anchor: dog",
        "ignore[0]: 'MOGGY' stands under proven already; expected it under one of the two",
    ),
    "an exception that is implied": (
        "anchor: dog",
        "keep: [cat burglar], implied: [cat-burglars], anchor: dog",
        "implied[0]: 'cat-burglars' stands under keep already; expected it under one of the two",
    ),
    "a word that is proven of two concepts": (
        "anchor: dog, preserve: [tiger, lion, dog]}\n    - {name: knife}",
        "anchor: dog, proven: [claw]}\n    - {name: knife, proven: [claws]}",
        "erasure.concepts[1].proven[0]: 'claws' is proven of 'cat'; expected a word that means one concept to be",
    ),
    "a word that is implied of one and proven of another": (
        "anchor: dog, preserve: [tiger, lion, dog]}\n    - {name: knife}",
        "anchor: dog, implied: [claw]}\n    - {name: knife, proven: [claw]}",
        "erasure.concepts[1].proven[0]: 'claw' is implied of 'cat'; expected a word that means one concept to be",
    ),
    "an implied word that is to be preserved": (
        "{name: knife}",
        "{name: knife, implied: [tigers]}",
        "erasure.concepts[1].implied[0]: 'tigers' is to be preserved of 'cat'; expected it there or here, not both",
    ),
    "a proven word that is an anchor": (
        "anchor: dog",
        "proven: [dog], anchor: dog",
        "proven[0]: 'dog' is the anchor of 'cat'; expected it there or here, not both",
    ),
    "an ignored word that is none": ("anchor: dog", "ignore: ['?'], anchor: dog", "ignore[0]: is '?'; expected a word"),
    "words without a first round": ("audit:", "words: {pictures: 0}\naudit:", "words.pictures: is 0; expected"),
    "exception without a word": ("anchor: dog", "keep: ['!'], anchor: dog", "keep[0]: is '!'; expected a word"),
    "alias that is only signs": ("tabby]", "'++']", "aliases[1]: is '++'; expected a word"),
    "alias in another writing": (
        "{name: knife}",
        "{name: knife, aliases: [ＣＡＴ]}",
        "'ＣＡＴ' is already a word for 'cat'; expected a word to name one concept",
    ),
    "unknown method": (
        "method: uce",
        "method: ucee",
        "erasure.recipe[0].method: unknown method 'ucee' (did you mean 'uce'?)",
    ),
    "recipe with an unlisted concept": (
        "[cat]}",
        "[cats]}",
        "erasure.recipe[1].concepts[0]: 'cats' is not in the erasure",
    ),
    "recipe concepts of a wrong kind": ("concepts: [cat]}", "concepts: cat}", "is 'cat'; expected all, or a list"),
    "recipe step for no concept": ("concepts: [cat]}", "concepts: []}", "erasure.recipe[1].concepts: is an empty list"),
    "recipe step that repeats itself": ("[cat]}", "[cat, cat]}", "'cat' is named twice in this step"),
    "source and template": ("template:", "source: a.txt, template:", "prompts: has both source and template"),
    "neither source nor template": ('template: "a {animal} {place}", ', "", "prompts: has neither source nor template"),
    "values without a template": ('template: "a {animal} {place}"', "source: a.txt", "without prompts.template"),
    "template field without values": (
        "{animal}",
        "{animl}",
        "{animl} has no list in prompts.values (did you mean 'animal'?)",
    ),
    "values without a template field": (
        "{animal: [",
        "{colour: [red], animal: [",
        "prompts.values.colour: is no field",
    ),
    "values that are empty": ("[cat, dog]", "[]", "prompts.values.animal: is an empty list"),
    "template that is malformed": ("{place}", "{place", "prompts.template:"),
    "template with a format": ("{place}", "{place!r}", "prompts.template: has the field {place}; expected a name"),
    "no images per prompt": (
        "values:",
        "images_per_prompt: 0, values:",
        "prompts.images_per_prompt: is 0; expected at least 1",
    ),
    "no prompts at all": ("values:", "limit: 0, values:", "prompts.limit: is 0; expected at least 1"),
    "size off the grid": ("audit:", "generation: {size: [64, 60]}\naudit:", "generation.size: has a side of 60 pixels"),
    "size with one side": (
        "audit:",
        "generation: {size: [64]}\naudit:",
        "generation.size: is [64]; expected [width, height]",
    ),
    "no steps": ("audit:", "generation: {steps: 0}\naudit:", "generation.steps: is 0; expected 1 to 1,000"),
    "negative guidance": (
        "audit:",
        "generation: {guidance: -1}\naudit:",
        "generation.guidance: is -1.0; expected at least 0",
    ),
    "batch size of zero": (
        "audit:",
        "generation: {batch_size: 0}\naudit:",
        "generation.batch_size: is 0; expected auto",
    ),
    "batch that nothing holds": (
        "audit:",
        "generation: {batch_size: 1000000}\naudit:",
        "generation.batch_size: is 1000000; expected 1 to 4,096",
    ),
    "negative prompt without guidance": (
        "audit:",
        "generation: {guidance: 1, negative_prompt: blurry}\naudit:",
        "generation.negative_prompt: is given, but generation.guidance is 1, and up to 1 nothing listens to it",
    ),
    "batch size of a wrong word": (
        "audit:",
        "generation: {batch_size: big}\naudit:",
        "is 'big'; expected auto, or a whole",
    ),
    "unknown detector": (
        "detector: diorama",
        "detector: dioramma",
        "unknown detector 'dioramma' (did you mean 'diorama'?)",
    ),
    "policy without a detector": (SEEN, "policy: drop", "audit.policy: drop needs a detector"),
    "caption anchors without a detector": (
        SEEN,
        "captions: anchor",
        "audit.captions: anchor needs a detector",
    ),
    "unjudged without a detector": (SEEN, "unjudged: [cat]", "audit.unjudged: is given without audit.detectors"),
    "unknown measure": (
        SEEN,
        "quality: [hahs]",
        "audit.quality[0].measure: unknown measure 'hahs' (did you mean 'hash'?",
    ),
    "measure twice": (SEEN, "quality: [hash, {measure: hash}]", "audit.quality[1].measure: 'hash' is named twice"),
    "quality that is no list": (
        SEEN,
        "quality: hash",
        "audit.quality: is 'hash'; expected a list of names or mappings",
    ),
    "measure that is no name": (SEEN, "quality: [[hash]]", "audit.quality[0]: is ['hash']; expected a mapping with"),
    "measure by another key": (
        SEEN,
        "quality: [{clip: {}}]",
        "audit.quality[0].clip: unknown key; expected one of meas",
    ),
    "a detector's old place": (SEEN, "detector: diorama", "audit.detector: is now audit.detectors[0].detector; ex"),
    "its options'": (SEEN, "options: {a: 1}", "audit.options: is now audit.detectors[0].options; expected it there"),
    "its thresholds'": (SEEN, "thresholds: {cat: 1}", "audit.thresholds: is now audit.detectors[0].thresholds; exp"),
    "detector without a name": ("detector: diorama", "role: judge", "audit.detectors[0].detector: is missing"),
    "unknown role": ("diorama}]", "diorama, role: judje}]", "role: is 'judje' (did you mean 'judge'?"),
    "unknown combination": ("diorama}]", "diorama}], combine: none", "combine: is 'none'; expected one of any, all"),
    "unjudged concept that is not listed": (
        "diorama}]",
        "diorama}], unjudged: [cta]",
        "audit.unjudged[0]: 'cta' is not in the erasure list (did you mean 'cat'?)",
    ),
    "concept of a detector that is not listed": (
        "detector: diorama",
        "detector: diorama, concepts: [knive]",
        "audit.detectors[0].concepts[0]: 'knive' is not in the erasure list (did you mean 'knife'?)",
    ),
    "concept of a detector named twice": ("diorama}]", "diorama, concepts: [cat, cat]}]", "[1]: 'cat' is named twice"),
    "concept that nobody is to judge": (
        "{name: knife}",
        "{name: knife, audit: nobody}",
        "erasure.concepts[1].audit: is 'nobody'; expected one of detectors, none",
    ),
    "unknown kind": ("{name: knife}", "{name: knife, kind: thing}", "expected one of object, style, identity, policy"),
    "threshold of a concept that it is not given": (
        "diorama}]",
        "diorama, concepts: [cat], thresholds: {knife: .5}}]",
        "audit.detectors[0].thresholds.knife: is not among this detector's concepts, cat",
    ),
    "calibration that is not there": (
        "diorama}]",
        "diorama, calibration: none.json}]",
        "audit.detectors[0].calibration: ",
    ),
    "threshold of no concept": (
        "detector: diorama",
        "detector: diorama, thresholds: {cats: .5}",
        "(did you mean 'cat'?)",
    ),
    "threshold out of range": (
        "detector: diorama",
        "detector: diorama, thresholds: {cat: 5}",
        "is 5.0; expected 0 to 1",
    ),
    "no attempts": ("diorama}]", "diorama}], attempts: 0", "audit.attempts: is 0; expected 1 to 100"),
    "unknown kind of store": (
        "path: out/x",
        "path: s4://bucket/x",
        "output.path: unknown 's4://' (did you mean 's3://'?)",
    ),
    "store without a bucket": ("path: out/x", "path: 's3://'", "output.path: is 's3://'; expected s3://BUCKET/FOLDER"),
    "store without a folder": (
        "path: out/x",
        "path: 's3://b/'",
        "output.path: is 's3://b/'; expected s3://BUCKET/FOLDER",
    ),
    "folder without a name": (
        "path: out/x",
        "path: out/.",
        "output.path: is 'out/.'; expected a folder's name, because",
    ),
    "root of the file system": ("path: out/x", "path: /", "output.path: is '/'; expected a folder's name, because its"),
    "storage options for a folder": (
        "path: out/x",
        "path: out/x, storage_options: {a: b}",
        "are given for a local folder",
    ),
    "quality out of range": ("path: out/x", "path: out/x, quality: 101", "output.quality: is 101; expected 1 to 100"),
    "shards past five digits": ("path: out/x", "path: out/x, samples_per_shard: 100001", "expected 1 to 100,000"),
    "no workers": ("audit:", "cluster: {workers: {min: 0}}\naudit:", "cluster.workers.min: is 0; expected at least 1"),
    "fewer workers than few": (
        "audit:",
        "cluster: {workers: {min: 3, max: 2}}\naudit:",
        "cluster.workers.max: is 2, less",
    ),
    "no threads": ("audit:", "cluster: {threads_per_worker: 0}\naudit:", "cluster.threads_per_worker: is 0"),
    "timeout of zero": ("audit:", "cluster: {shard_timeout: 0}\naudit:", "cluster.shard_timeout: is 0; expected more"),
    "no time to load": ("audit:", "cluster: {load_timeout: -1}\naudit:", "cluster.load_timeout: is -1; expected more"),
    "unknown log level": ("audit:", "log_level: warn\naudit:", "log_level: unknown 'warn' (did you mean 'warning'?)"),
    "negative seed": ("audit:", "seed: -1\naudit:", "seed: is -1; expected 0 to"),
    "variable that is not set": ("path: diorama", "path: '${oc.env:LACUNA_UNSET}'", "model.path: Environment variable"),
    "interpolation of nothing": (
        "path: diorama",
        "path: '${nothing}'",
        "model.path: Interpolation key 'nothing' not found",
    ),
    "erasure list that is missing": ("concepts:\n", "lists: [nope.yaml]\n  concepts:\n", "erasure.lists[0]:"),
    "stand-in that names what is erased": (
        "audit: {",
        "audit: {caption_subject: a cat, ",
        "audit.caption_subject: 'a cat' contains 'cat', a word for 'cat'; expected other words, or null",
    ),
    "stand-in without a word": (
        "audit: {",
        "audit: {caption_subject: ' ', ",
        "audit.caption_subject: is ' '; expected words",
    ),
    "concepts without a recipe": (
        "  recipe:\n    - {method: uce}\n    - {method: cease, concepts: [cat]}\n",
        "",
        "erasure.recipe: is absent, so that nothing would be erased of what is listed (cat, knife); expected steps",
    ),
    "key given twice": ("audit:", "seed: 1\nseed: 2\naudit:", "not valid YAML: found duplicate key seed"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_each_kind_gives_one_clear_line(kind, sound):
    old, new, expected = SPOILT[kind]
    text = sound.read_text()
    assert old in text
    sound.write_text(text.replace(old, new, 1))
    message = refusal(sound)
    assert expected in message
    assert message.startswith(f"{sound}:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty; expected a mapping"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "is a list at its top level; expected a mapping"),
        ("hello\n", "is plain text at its top level"),
        ("model: {path: [diorama\nseed: 1\n", ":2:5: not valid YAML"),
        ("model:\n\tpath: diorama\n", ":2:1: not valid YAML"),
        ("model: &m {path: diorama, scheduler_options: *m}\n", ":1:8: not valid YAML: YAML recursive aliases"),
        ("seed: " + "[" * 1000 + "]" * 1000, "is nested too deeply to be read"),
        ("seed: 1\n---\nseed: 2\n", ":2:1: not valid YAML"),
        ("model: !!python/object/apply:os.getcwd []\n", ":1:8: not valid YAML"),
    ],
)
def test_files_that_are_no_config(text, expected, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    message = refusal(path)
    assert expected in message
    assert message.startswith(str(path))


def test_no_file_a_folder_and_bytes(tmp_path):
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such config file"
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; expected a YAML file"
    (tmp_path / "latin.yaml").write_bytes(b"model: \xe9")
    assert "is not UTF-8 text" in refusal(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("model..path=x", "override 'model..path=x': expected KEY=VALUE"),
        ("sed=3", "override 'sed=3': sed: unknown key (did you mean 'seed'?)"),
        ("generation.steps=many", "override 'generation.steps=many': generation.steps: is 'many'; expected a whole"),
        ("generation={stepz: 3}", "generation.stepz: unknown key (did you mean 'steps'?)"),
        (
            "erasure.concepts[0].anchor=kitten",
            "override 'erasure.concepts[0].anchor=kitten': erasure.concepts[0].anchor:",
        ),
        ("erasure.concepts[7].anchor=x", "past the end of the list"),
        ("erasure.lists[0]=x", "erasure.lists[0] is past the end of the list in the file, which has 0"),
        ("modle.path=x", "override 'modle.path=x': modle: unknown key (did you mean 'model'?)"),
        ("erasure.concepts[0].nam=x", "erasure.concepts[0].nam: unknown key (did you mean 'name'?)"),
        ("erasure.concepts.cat=x", "a list takes a number"),
        ("generation.size=[64, 64", "the value is not valid YAML; put it in quotes"),
        ("seed=1 # one", "`#` begins a comment in YAML"),
        ("seed.x=1", "seed holds no further keys"),
        (
            "audit.detectors[0].thresholds.St. Bernard=.3",
            "a name with a dot stands in brackets: audit.detectors[0].thresholds[St. Bernard]=...",
        ),
        (
            "audit.detectors[0].thresholds[St. Bernard]=3",
            "audit.detectors[0].thresholds[St. Bernard]: is not in the erasure list",
        ),
        ("audit.detector=diorama", "audit.detector: is now audit.detectors[0].detector; ex"),
        ("audit.thresholds.cat=.3", "audit.thresholds: is now audit.detectors[0].thresholds; expected it there"),
        ("audit[thresholds=1", "expected KEY=VALUE"),
        ("audit.=1", "expected KEY=VALUE"),
        ("erasure.concepts=[]", "erasure.recipe"),
    ],
)
def test_overrides_are_blamed_by_themselves(override, expected, sound):
    assert expected in refusal(sound, override)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("source: a.csv, column: x", "prompts.column: is now prompts.columns.prompt; expected it there"),
        ("source: a.csv, bad_rows: drop", "prompts.bad_rows: is 'drop'; expected one of fail, skip"),
        ("source: a.csv, columns: {prmpt: x}", "prompts.columns.prmpt: unknown key (did you mean 'prompt'?); expected"),
        ("source: a.csv, columns: {prompt: null}", "prompts.columns.prompt: is null; expected the name of a column"),
        (
            "source: a.csv, columns: {seed: [s]}",
            "prompts.columns.seed: is ['s']; expected the name of a column or null",
        ),
        ("source: a.csv, columns: {seed: ''}", "prompts.columns.seed: is ''; expected the name of a column"),
        (
            "source: a.csv, columns: {negative_prompt: prompt}",
            "prompts.columns.negative_prompt: 'prompt' is the prompt already; expected another column",
        ),
        (
            "source: a.csv, columns: {prompt: p, width: w, height: w, seed: w}",
            "prompts.columns.width: 'w' is the seed already; expected another column",
        ),
        ("source: a.csv, columns: {width: w}", "prompts.columns: names width or height alone; expected both, or size"),
        (
            "source: a.csv, columns: {width: w, height: h, size: s}",
            "prompts.columns: names size beside width and height; expected one of them",
        ),
        ("source: a.csv, columns: {pass: id}", "prompts.columns.pass: is 'id'; expected all, or a list of column"),
        (
            "source: a.csv, columns: {pass: [id, no]}",
            "prompts.columns.pass[1]: is false; expected text (put it in quotes",
        ),
        ("source: a.csv, columns: {pass: [id, id]}", "prompts.columns.pass[1]: 'id' is named twice"),
        ("source: a.csv, columns: caption", "prompts.columns: is 'caption'; expected a mapping"),
        (
            "template: a, columns: {prompt: x}",
            "prompts.columns: are given with prompts.template, whose columns are its",
        ),
        (
            "template: ' {a} ', values: {a: [' ', x]}",
            "prompts.template: makes a blank prompt where each field is blank",
        ),
    ],
)
def test_what_a_source_is_to_be_taken_for(prompts, expected, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"model: {{path: diorama}}\nprompts: {{{prompts}}}\noutput: {{path: out/x}}\n")
    message = refusal(path)
    assert message.startswith(f"{path}: {expected}")
    assert "\n" not in message


def test_a_fault_in_an_erasure_list_names_that_list(sound, tmp_path):
    listed = tmp_path / "list.yaml"
    sound.write_text(sound.read_text().replace("erasure:", "erasure:\n  lists: [list.yaml]", 1))
    for text, expected in {
        "concepts: [{name: gun}, {name: Kitten}]": "concepts[1].name: 'Kitten' is already a word for 'cat'",
        "concepts: [{name: gun}, {nam: pill}]": "concepts[1].nam: unknown key (did you mean 'name'?)",
        "concept: []": "concept: unknown key (did you mean 'concepts'?)",
        "concepts: []": "concepts: lists no concept",
        "concepts: [{name: gun": "not valid YAML",
    }.items():
        listed.write_text(text)
        message = refusal(sound)
        assert message.startswith(f"{listed}:")
        assert expected in message


def test_a_secret_is_not_in_the_message(sound, monkeypatch):
    monkeypatch.setenv("LACUNA_SECRET", "hunter2hunter2")
    message = refusal(sound, "model.scheduler=${oc.env:LACUNA_SECRET}")
    assert "hunter2" not in message
    assert "${oc.env:LACUNA_SECRET}" in message


def test_the_command_line_exits_with_two_and_one_line(sound):
    command = [sys.executable, "-m", "pipeline.cli", "show", str(sound), "sed=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def refusal(path, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message
