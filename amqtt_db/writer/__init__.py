"""journal → database, in the order of the way.

``drain`` takes batches from the journal and never gives up; ``writer`` stores one, optimistically, and finds whom to
blame; ``lanes`` knows each topic's way; ``harvest`` gathers what a batch becomes; ``plan`` makes rows of records;
``transaction`` commits it all with the checkpoint; ``attempt`` notes what may kill the process; ``claim`` keeps other
writers away.  Beside the batches, ``views`` keeps views in step, and ``retention`` deletes what is too old, in the
places that ``homes`` finds.
"""
