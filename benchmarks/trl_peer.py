"""Train a LoRA adapter with TRL's SFTTrainer, as `benchmarks.peers` asks.

    PEER_PYTHON benchmarks/trl_peer.py ASKED.json

Runs in an environment that has TRL and nothing of ours. The examples come as token ids; TRL packs them itself. Writes
the adapter and `measured.json` into the folder `out`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config, out = asked["config"], asked["out"]
    logging.disable_progress_bar()
    disable_progress_bars()
    set_seed(config["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        asked["base"],
        dtype=torch.float32,
        device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **config["bnb_config_kwargs"]
        ),
    )
    trainer = SFTTrainer(
        model,
        SFTConfig(
            out,
            packing=True,
            max_length=asked["row_tokens"],
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            num_train_epochs=config["num_epochs"],
            learning_rate=config["learning_rate"],
            lr_scheduler_type=config["lr_scheduler"],
            weight_decay=config["weight_decay"],
            max_grad_norm=config["max_grad_norm"],
            optim=config["optimizer"],
            seed=config["seed"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        ),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in asked["examples"]]),
        processing_class=AutoTokenizer.from_pretrained(asked["base"]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=config["lora_r"],
            lora_alpha=config["lora_alpha"],
            lora_dropout=config["lora_dropout"],
            target_modules=config["lora_target_modules"],
        ),
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bfloat16 when the base is quantised; ours are float32
            parameter.data = parameter.data.float()
    rows, collate = [], trainer.data_collator

    def counted(features: list[dict[str, Any]]) -> Any:
        row = collate(features)
        rows.append(row["input_ids"].numel())
        return row

    trainer.data_collator = counted
    wall, cpu = time.monotonic(), time.process_time()
    trainer.train()
    seconds = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
    trainer.save_model(out)
    facts = {**seconds, "tokens": sum(rows), "steps": trainer.state.global_step, "log": trainer.state.log_history}
    Path(out, "measured.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
