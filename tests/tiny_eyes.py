"""Tiny checkpoints of transformers with random weights, made on the spot and saved like any model, for detectors."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

from pipeline.audit.detector import Detector, load_detector
from pipeline.concepts.term import Kind, Term
from pipeline.config.sections.audit import DetectorConfig
from tests import tiny

SIDE = 32  # pixels that a network looks at
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": 8, "projection_dim": 16,
}  # fmt: skip


def text_config() -> dict[str, Any]:
    words = tiny.tokenizer()
    return {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": tiny.LENGTH, "projection_dim": 16,
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip


def processor(name: str, **settings: Any) -> Any:
    """An image processor that works with Pillow, by the beginning of its class's name."""
    return get_image_processor_class_from_name(f"{name}ImageProcessorPil")(**settings)


def save(folder: Path, network: Any, *parts: Any) -> Path:
    """Save a network with its tokenizer and image processor into *folder*."""
    for part in (network, *parts):
        part.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    config = transformers.CLIPConfig(text_config=text_config(), vision_config=VISION, projection_dim=16)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return save(folder, seeded(transformers.CLIPModel, config), tiny.tokenizer(), processor("CLIP", **size))


def siglip(folder: Path) -> Path:
    config = transformers.SiglipConfig(text_config=text_config(), vision_config=VISION)
    network = seeded(transformers.SiglipModel, config)
    torch.nn.init.constant_(network.logit_bias, -2.0)
    torch.nn.init.constant_(network.logit_scale, 2.0)
    image = processor("Siglip", size={"height": SIDE, "width": SIDE})
    return save(folder, network, tiny.tokenizer(), image)


def classifier(folder: Path, labels: Sequence[str] = ("tabby, tabby cat", "tiger cat", "dog"), **settings: Any) -> Path:
    """A ViT that classifies; *settings* are further ones of its config."""
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    config = transformers.ViTConfig(**vision, id2label=dict(enumerate(labels)), **settings)
    image = processor("ViT", size={"height": SIDE, "width": SIDE})
    return save(folder, seeded(transformers.ViTForImageClassification, config), image)


def dino(folder: Path) -> Path:
    """A DINOv2."""
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=SIDE, patch_size=8
    )
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return save(folder, seeded(transformers.Dinov2Model, config), processor("Bit", **size))


def safety_checker(folder: Path) -> Path:
    """Stable Diffusion's safety checker, as it lies in a pipeline's folder; some pictures come over its thresholds."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    config = transformers.CLIPConfig(text_config=text_config(), vision_config=VISION, projection_dim=16)
    network = seeded(StableDiffusionSafetyChecker, config)
    torch.manual_seed(1)
    for name, level in (("concept_embeds", 0.55), ("special_care_embeds", 0.5)):
        embeds = getattr(network, name)
        embeds.data = torch.randn(embeds.shape)
        getattr(network, f"{name}_weights").data.fill_(level)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor("CLIP", **size).save_pretrained(folder / "feature_extractor")
    return save(folder / "safety_checker", network)


def owl(folder: Path, version: str = "v2") -> Path:
    """An OWLv2, or an OWL-ViT (*version* "ViT")."""
    config_class = getattr(transformers, f"Owl{version}Config")
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    config = config_class(text_config=text_config(), vision_config=vision, projection_dim=32)
    network = seeded(getattr(transformers, f"Owl{version}ForObjectDetection"), config, 1.0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "vision_model" in name and parameter.dim() > 1:
                parameter.mul_(20.0)
    image = processor(f"Owl{version}", size={"height": SIDE, "width": SIDE})
    return save(folder, network, tiny.tokenizer(), image)


def grounding(folder: Path, family: str = "GroundingDino", longest: int = 32) -> Path:
    """A Grounding DINO, or an MM-Grounding-DINO (*family* "MMGroundingDino"), that reads captions of 32 tokens."""
    words = bert_tokenizer()
    text = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2, image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=12,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_text_len=longest, num_feature_levels=4,
    )  # fmt: skip
    network = seeded(getattr(transformers, f"{family}ForObjectDetection"), config, 1.5)
    image = processor("GroundingDino", size={"shortest_edge": 128, "longest_edge": 192})
    return save(folder, network, words, image)


def bert_tokenizer() -> Any:
    letters = string.ascii_lowercase + string.digits
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        "?",
        "-",
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    return transformers.BertTokenizer(vocab={piece: i for i, piece in enumerate([*pieces, "cat", "dog", "kitten"])})


def llava(folder: Path) -> Path:
    """A LLaVA: a CLIP that looks and a Llama that answers."""
    words = chat_tokenizer(["<image>", "USER", "ASSISTANT"])
    vision = transformers.CLIPVisionConfig(**VISION)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**LANGUAGE, vocab_size=len(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    template = CHAT.format("<image> ", "ASSISTANT")
    parts = transformers.LlavaProcessor(
        image_processor=processor("CLIP", **size), tokenizer=words, patch_size=8, chat_template=template,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    return save(folder, seeded(transformers.LlavaForConditionalGeneration, config, 2.0), parts)


def shield(folder: Path) -> Path:
    """A ShieldGemma 2: a Gemma 3 that is asked about policies."""
    special = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = chat_tokenizer(list(special.values()), extra_special_tokens=special)
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    text = {**LANGUAGE, "head_dim": 16, "vocab_size": len(words)}
    config = transformers.ShieldGemma2Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=16,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        yes_token_index=words.convert_tokens_to_ids("y"), no_token_index=words.convert_tokens_to_ids("n"),
    )  # fmt: skip
    template = CHAT.format("<start_of_image>", "Yes or No")
    parts = transformers.ShieldGemma2Processor(
        processor("Gemma3", size={"height": SIDE, "width": SIDE}), words, chat_template=template, image_seq_length=16
    )
    network = seeded(transformers.ShieldGemma2ForImageClassification, config, 2.0)
    for name, parameter in network.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # which is zero before training
            torch.nn.init.normal_(parameter)
    return save(folder, network, parts)


CHAT = (
    "USER: {{% for part in messages[0]['content'] %}}{{{{ '{}' if part['type'] == 'image' else part['text'] }}}}"
    "{{% endfor %}} {}:"
)
LANGUAGE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def chat_tokenizer(special: list[str], **settings: Any) -> Any:
    """A tokenizer of letters, with *special* tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    pieces = ["<pad>", "<s>", "</s>", "<unk>", *special, *string.printable]
    letters = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", **settings
    )
    words.add_tokens(special, special_tokens=True)
    return words


def seeded(network_class: Callable[[Any], Any], config: Any, larger: float = 3.0) -> Any:
    """A network of *config* with random weights, the same ones each time, *larger* so as to tell pictures apart."""
    torch.manual_seed(0)
    network = network_class(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(larger)
    return network


def load(detector: str, **options: Any) -> Detector:
    """Load as a config does that names it."""
    return load_detector(DetectorConfig(detector=detector, options=options), "cpu", "audit.detectors[0]")


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """Different pictures, uint8 ``(count, height, width, 3)``: coarse blots of colour."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(picture).resize((width, height))) for picture in coarse])


def style(folder: Path) -> Term:
    """A style with four pictures, saved into *folder*, that show it."""
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, pictures(4, 50, 40), strict=True):
        Image.fromarray(image).save(path)
    return Term("blots", kind=Kind.style, references=paths)


SIZES = [(40, 40), (96, 33), (5, 7), (31, 300)]  # height, width: square, tall, tiny, wide


def check(detector: Detector, terms: Any, tolerance: float = 1e-4) -> None:
    """Hold what every detector promises: scores of the right shape, the same each time, and alone as among others."""
    for height, width in SIZES:
        images = pictures(5, height, width)
        scores = detector.see(images, terms).scores
        assert scores.dtype == np.float32
        assert scores.shape == (5, len(terms))
        assert (scores >= 0).all()
        assert (scores <= 1).all()
        assert (detector.see(images, terms).scores == scores).all()
        alone = np.concatenate([detector.see(images[i : i + 1], terms).scores for i in range(5)])
        assert np.abs(alone - scores).max() < tolerance
    assert scores.std(0).max() > 10 * tolerance  # it tells pictures apart, far beyond what batches change
    empty = detector.see(np.zeros((0, 40, 40, 3), np.uint8), terms)
    assert empty.scores.shape == (0, len(terms))
    assert all(0 < detector.threshold(term) < 1 for term in terms)
    if not torch.are_deterministic_algorithms_enabled():
        assert detector.deterministic


def one_line(detector: str, **options: Any) -> str:
    """Return what is said to *options* that cannot be."""
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        load(detector, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
