from temp import *

for seed in (7, 8, 9):
    s = cached(seed)
    v = values_of(s)
    c = v["cols"]
    one = np.ones(c.shape, bool)
    print(
        seed,
        "lr+xgb drawn .15 %.4f"
        % pway(s, c, pl(standardise(0.7 * v["lr"] + 0.3 * v["xgb"], one) / 0.15)),
        "rosa+xgb .3 drawn .15 %.4f"
        % pway(s, c, pl(standardise(0.7 * v["refit3"] + 0.3 * v["xgb"], one) / 0.15)),
        "lr %.4f xgb %.4f" % (gw(s, c, v["lr"]), gw(s, c, v["xgb"])),
        flush=True,
    )
