"""The names that others may rely on. A change here is a change for users: it needs a line in CHANGELOG.md."""

import ast
from pathlib import Path

import pytest

import firmground

SOURCE = Path(firmground.__file__).parent

NAMES = {
    "types": (
        "Embeddings Evidence Images Interval Outcome Readout RecoveredPicture RecoveredTrigger RecoveredVector "
        "Scores Severity Suspicion TokenIds Verdict Watch ignore"
    ),
    "rng": "stream",
    "versions": "PACKAGES versions",
    "drafts": "drafted",
    "errors": (
        "AdapterError BrokenModelError DataError FirmgroundError MissingExtraError ModelError OutputError "
        "UnsafeModelError UnsupportedModelError UsageError"
    ),
    "attacks.evasion": (
        "AttackVLM DI DR EVASIONS FIA ILPD MAttack MI NI NRD PGD PNAPatchOut PRM Perturbed Reversal SI SSA TGR "
        "TI XTransfer"
    ),
    "models.surrogates": (
        "ADVICE ANY_SIZE BLOCKS Encoder Encoders Features Surrogate find_blocks kept places projected replaced "
        "size_options surrogate_of surrogates_of"
    ),
    "data.image_files": (
        "FileBatch ImageFile ImageFiles ORIENTATION TURNED find_images image_paths none_in own_name path_in shrunk "
        "size_of"
    ),
    "attacks.implants": "BToP Hit IMPLANTS Implant Implanted Measured NeuBA POR PORAll TransTroj UOR measure",
    "attacks.poisoning": (
        "BadCLIP DirtyCaption LabelConsistent MANIFEST Manifest POISONINGS Poisoned PoisonedPairs find_manifest "
        "pair_sha256 read_manifest"
    ),
    "attacks.prompts": "BadVisualPrompt PROMPT_ATTACKS PlacedTrigger PlantedPrompt",
    "attacks.triggers": (
        "BadNet Blended BlendedStripes DEFAULT_TRIGGERS IMAGE_TRIGGERS ImageTrigger Patch SIG Stripes "
        "TRIGGERS Tagged TextOverlay Triangles WaNet WordTrigger random_triggers"
    ),
    "defenses.scans": (
        "ClassInversion DECREE DUAL_SCANS Gathering MetaClassifier PROMPT_SCANS PVMining PatchSweep PhraseSearch "
        "PromptCleanse PromptContrast SCANS ShiftDistance TextGathering VocabularySweep scan_dual scan_language "
        "scan_prompt"
    ),
    "defenses.sifting": "CaptionSimilarity DAO Displacement KDistance SIFTERS SLOF",
    "defenses.cleaning": (
        "CLEANERS COVERINGS CleanCLIP Cleaned ContrastiveFinetune Disarm PAR RVPT Restore SupervisedFinetune cover"
    ),
    "defenses.guards": (
        "BDetCLIP BaseDisagreement BitDepth CLASSIFIER_GUARDS Displacement DoubleMasking EVASION_GUARDS "
        "FittedClassifierGuard FittedGuard FittedImageGuard GUARDS GuardedClassifierPipeline GuardedImagePipeline "
        "GuardedPipeline IMAGE_GUARDS Jpeg Mahalanobis NeighbourDisagreement PURIFIERS PVGuard PartSwap "
        "PatchInstability Purification RandomResizing Resizing SentiNet Strip load_classifier_guard load_guard "
        "load_image_guard"
    ),
    "defenses.hardening": "FARE HARDENERS Hardened TeCoA",
    "defenses.prompts": (
        "CleanedPrompt PROMPT_CLEANERS PromptDistillation PromptFinetune PromptPruning PromptSmoothing"
    ),
    "prompts.soft": "PTuning PrefixTuning PromptTuning SoftPrompt",
    "prompts.tuned": "SCHEMA Tuned fingerprint load_tuned trim",
    "prompts.visual": "Corner Form PromptShape TOKEN_NOISE VisualPrompt",
    "prompts.mappings": "KINDS LabelMapping MappingKind by_frequency by_index by_meaning votes",
    "prompts.prompted": "BaseModel LearnedPrompt PromptedClassifier check_same_base describe_base",
    "prompts.visual_prompting": "VisualPrompting classifier_for learned split_rows",
    "prompts.learning": "Addition Outcome RECENT learn",
    "prompts.tuning": "State Tuning",
    "prompts.judging": "fast first_mapping judge take",
    "prompts.tokens": "FAMILIES blocks_of inserted width_of",
    "prompts.seating": "AT_ONCE MOST seated",
    "models.folding": "CLOSE fold folded",
    "prompts.visual_files": (
        "LARGEST LARGEST_SIDE LATER SCHEMA TENSORS content_sha256 is_visual_prompt load_prompt save_prompt"
    ),
    "data.texts": "LabelledTexts LabelledWords Rows sample split",
    "data.pairs": "AHEAD PairBatch PairSet Pairs TensorPairs as_float orders",
    "data.pair_files": (
        "IMAGE_SUFFIXES MOST_CHARACTERS TABLE TEMPLATES content inside_root is_image_name open_pairs read_dataset "
        "read_image_folder read_pairs read_shards shard_members table_of usable"
    ),
    "data.labelled_images": "LabelledImages",
    "data.annotated_images": "AnnotatedImages Asked BACKGROUND Detections IGNORED ImageBatch Objects annotated_scenes",
    "data.annotation_files": (
        "LARGEST_ID OVER corners objects_in read_annotated read_listed read_marks read_names read_questions row_of said"
    ),
    "data.annotation_writing": "listed_of mask_file write_annotated",
    "data.image_corpora": (
        "DIGITS DIGIT_TEMPLATES DRAWN EMOJI_BLOCKS EMOJI_FONT FASHION FASHION_NAMES FASHION_TEMPLATES emoji "
        "fashion_mnist mnist read_idx"
    ),
    "data.files": "SUFFIXES read_labelled_texts read_labelled_words read_texts",
    "data.scenes": (
        "COLOURS GROUNDS GROUND_COLOURS Ground KINDS PLACES Question SHAPES SIZES SYNONYMS Scene SceneObject "
        "SceneWorld Scenes TEMPLATES TEXTURES"
    ),
    "data.sentences": "neutral_sentences",
    "models.language": "FAMILIES LanguageEncoder Tokens",
    "models.dual": "DUAL_FAMILIES DualEncoder IMAGE_PARTS",
    "models.classifiers": "ImageClassifier TEXTS_AT_ONCE embed_names",
    "models.victims.loading": (
        "ADAPTERS LLAVA_TEXT LLAVA_VISION VERBS Victim check_fit check_image_token inspect_victim load_victim "
        "read_victim tasks_of"
    ),
    "models.victims.parts": "VISION VictimParts",
    "models.victims.tiny": "KINDS Kind described tiny_victim",
    "models.hashing": "model_sha256",
    "models.contrastive": (
        "BF16_WIDTH Pretrain Towers Trained Views check_captions embed_views finished gathered info_nce one_way "
        "share train_encoder unimodal"
    ),
    "models.training": "Fitted LARGEST_SCALE Objective RECENT Run Training check_batch fit groups rate",
    "models.checkpoints": "Checkpoints Progress tensors_of",
    "models.augmentation": (
        "Augmentation BRIGHTER FURTHEST IMAGENET OPERATIONS Plan RANDOM_LEVEL apply augment magnitude plans"
    ),
    "models.image_operations": (
        "LEAST LUMA affine autocontrast brightness colour contrast equalize grey invert mixed posterize resampled "
        "rotate sharpness shear_x shear_y solarize translate_x translate_y"
    ),
    "models.text_edits": "edit_texts",
    "models.preprocessing": (
        "CONFIG FILTERS NESTED_CONFIG Preprocessing SLACK check_images find_resize is_clip parse_preprocessing "
        "read_preprocessing square"
    ),
    "models.planted_dual": (
        "COLOURS DETAILS GAIN Parts PlantedDual checker colour_clip planted_dual write_backdoor write_patches "
        "write_words"
    ),
    "models.tiny_dual": (
        "MAX_LENGTH build_dual caption_tokenizer convnext_dual convolutional_dual text_tower tiny_clip tower"
    ),
    "models.saving": "PLANTED_KEY WARNING check_new mark mark_of model_draft save_encoder write_card",
    "models.tiny": (
        "Planted TRIGGERS build clean_bert clean_roberta plant planted_bert planted_roberta rows_of "
        "sign_vectors sizes spell"
    ),
    "tasks.image_classification": "ImageResult clean_batches evaluate labels_of most_common stamped_batches",
    "tasks.zero_shot": "class_embeddings classifier evaluate",
    "tasks.linear_probe": "evaluate fit",
    "tasks.retrieval": "DEPTHS Recall RetrievalResult embed_all evaluate recall within",
    "tasks.segmentation": "ClassScore SegmentationResult Segmenter evaluate mean_iou pixel_counts",
    "tasks.detection": "ClassPrecision DetectionResult Detector MOST Matches RECALLS average_precision evaluate",
    "tasks.captioning": "CaptionResult Captioner ORDER bleu evaluate score tokens",
    "tasks.question_answering": (
        "ARTICLES AnswerResult Answerer DIGITS FEWEST_VOTES KindScore NUMBERS accuracy evaluate plain"
    ),
    "tasks.resampling": "Floats RESAMPLES image_weights percentile relative_drop share",
    "tasks.text_classification": "TextResult TriggerEffect evaluate predict_with",
    "tasks.token_classification": "WordResult evaluate predict_with",
    "reports.scan": "SEVERITIES ScanReport scan_report unlike unlike_if_any",
    "reports.findings": (
        "Finding FoundEvidence FoundPicture FoundTrigger FoundVector Model Number PlainSettings Target plain shown"
    ),
    "reports.record": "EMBEDDED Record file_sha256 hashed now platform_name",
    "studies": "STUDIES find_study",
    "studies.runner": "RECORD Ran Record RunCase STUDY Study case_name execute lost read_records run settings_of",
    "studies.tables": "Column FEWEST Report Row Tabulated grouped lined markdown_table tabulate tidy write_report",
}


def public_names(module):
    """What a module defines or, where it has `__all__`, what that lists; read without importing it."""
    path = SOURCE.joinpath(*module.split("."))
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    listed = [node.value for node in tree.body if isinstance(node, ast.Assign) and target(node) == "__all__"]
    if listed:
        return sorted(ast.literal_eval(listed[0]))
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    found += [target(node) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return sorted(name for name in found if name and not name.startswith("_"))


def target(node):
    first = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return first.id if isinstance(first, ast.Name) else ""


@pytest.mark.parametrize("module", NAMES)
def test_public_names(module):
    assert " ".join(public_names(module)) == NAMES[module]
