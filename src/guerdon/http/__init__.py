"""What every controller uses: declared operations, bodies, queries, cursors, responses and deadlines."""
