"""The ablation: did a selector, order or transition, or the soup, pay for itself?

After verification, and only where a study asks for it, the most promising policy with a component of the space meets
its *baseline*, for the three components nearest to the target: the same policy with that component replaced by its
neutral kin, a selector by `random`, an order by `uniform`, a transition by `keep`, and the soup by a longer subset
stretch. The compute of a policy includes all that it does, so both cost the same, and the baseline trains for what the
component spends. Both are trained with the same seeds, none of which the search has used, and are judged on the
validation split. Runs that verification made of the same policy with the same seed serve again; those of the search do
not, because its policies were chosen by them.

This is for information. It reads nothing of the test split and spends nothing of verification's error rate. The policy
was chosen by its validation metric and its baseline was not, which favours the component. The components of a study are
judged together, once all their runs are done, so that more of them do not say more that is not so.

The stage is a list of runs that is written down before the first of them, and its rows are a function of the runs that
are on record, so that a killed driver does none of them twice.
"""
