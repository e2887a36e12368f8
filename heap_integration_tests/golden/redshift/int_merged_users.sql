select from_user_id, to_user_id from "heap"."shop_models"."stg_heap__user_migrations"
