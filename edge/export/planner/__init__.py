"""From a budget to a plan: which bits each matrix keeps, so that the bundle fits and errs least.

budget.py what is asked for, front.py what can be had (pure), sensitivity.py and damage.py what rounding costs
(measured), formats/ what each format can vary, run.py the order of these, say.py words and tables.
"""
