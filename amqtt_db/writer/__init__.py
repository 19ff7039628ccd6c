"""journal → database, in the order of a batch's way.

``loop`` takes batches from the journal and never gives up; ``writer`` stores one, and finds which message is to blame
if it cannot; ``topic_router`` knows each topic's handler; ``decoded`` is what a batch's messages become; ``rows`` and
``insert_plan`` turn records into rows; ``transaction`` commits them with the checkpoint.  ``blame`` says whose fault an
error is, ``crash_guard`` notes what may kill the process, ``lock`` keeps other writers away.  Between batches,
``view_refresh`` updates views, and ``retention`` deletes old records in the groups of tables that ``retention_groups``
finds.
"""
