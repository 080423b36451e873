from dataclasses import dataclass
from qatoolkit.training.flops import architecture
@dataclass(frozen=True)
class Default:
    value: object
    reason: str
def usual_rate(p): return min(1e-2, 3e-4*(p/135e6)**-0.565)
def defaults(config, *, tokens, gpu, device_bytes=None):
    step=max(1024,min(32768,tokens//200)); block=min(512,getattr(config,'max_position_embeddings',512),step)
    return {"learning_rate":Default(float(f"{usual_rate(architecture(config).parameters):.2g}"),"x"),"block":Default(block,"x"),"batch":Default(max(1,step//block),"x"),"micro_batch":Default(None,"x"),"memory":Default("standard","x"),"checkpointing":Default(False,"x")}
def check_rate(rate, parameters, *, accepted=False, where): pass
