"""journal → database, in the order of a batch's way.

``loop`` takes batches from the journal and never gives up; ``writer`` stores one, and finds whom to blame if it cannot;
``topic_router`` knows each topic's handler; ``decoded`` is what a batch's messages become; ``rows`` and ``insert_plan``
make rows of records; ``transaction`` commits them with the checkpoint.  ``blame`` says whose fault an error is,
``crash_guard`` notes what may kill the process, ``lock`` keeps other writers away.  Beside the batches,
``view_refresh`` keeps views up to date, and ``retention`` deletes old records in the groups of tables that
``retention_groups`` finds.
"""
